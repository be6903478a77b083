"""The client of the control plane's API; it loads no Google library."""
