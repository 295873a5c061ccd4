"""The doors that sandboxes talk to the world through: model accounts, with the real keys on this side."""
