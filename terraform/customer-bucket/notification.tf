# Each finalised object is announced on the account's own topic; sublet grants the bucket's agent the right
# to publish there.

resource "google_storage_notification" "finalized" {
  bucket         = var.bucket
  topic          = var.topic
  payload_format = "JSON_API_V1"
  event_types    = ["OBJECT_FINALIZE"]
}
