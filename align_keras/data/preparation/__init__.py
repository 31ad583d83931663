"""The paper's rules for raw pairs, from counting to shards. No training, no evaluation."""
