"""The attack LOMMA: logit maximisation and model augmentation on GMI and KED-MI."""
