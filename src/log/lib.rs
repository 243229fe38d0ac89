//! One partition's log as data: formats of its files, where a batch goes, what a read covers, what recovery and retention do.
