"""The attack SecretGen: what partly hidden private images show, with and without the gradients of the target."""
