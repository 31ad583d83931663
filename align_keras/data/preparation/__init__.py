"""The paper's rules for raw pairs, from counting to writing shards. No training or evaluation."""
