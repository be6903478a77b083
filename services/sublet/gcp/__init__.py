"""The ports over Google Cloud's own client libraries; the only place that imports google.cloud."""
