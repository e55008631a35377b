"""Tuning records that ship with tvmdet, one folder per target; :mod:`tvmdet.tuning` reads them."""
