# Each object that is finalised under the prefix is announced on the account's own topic. sublet has let this
# project's agent of Cloud Storage publish there, because the account declared the project.

resource "google_storage_notification" "finalized" {
  bucket             = var.bucket
  topic              = var.topic
  payload_format     = "JSON_API_V1"
  event_types        = ["OBJECT_FINALIZE"]
  object_name_prefix = var.prefix
}
