"""The network seam: what a client is (`base`), the real one (`litellm_client`), and `replay`."""
