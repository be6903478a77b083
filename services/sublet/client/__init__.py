"""
The client of the control plane's API: `from sublet import LLM, Dataset, Client`. It loads no Google
library. Its errors are drawn in `sublet.client.errors`.
"""
