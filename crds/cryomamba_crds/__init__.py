"""The words that every part of CryoMamba shares: resource, task, report, failures, ids, keys, file headers."""
