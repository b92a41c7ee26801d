"""Rows of tables: samples, data sets, targets of scikit-learn, and what attacks on a sensitive column share."""
