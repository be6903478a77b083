# One topic for each type of fact (docs/events.md), and one for what could not be delivered.

locals {
  publishers = {
    sublet-dataset-registered = ["control-plane", "register-dataset", "sweep-leases"]
    sublet-dataset-refused    = ["register-dataset", "sweep-leases"]
    sublet-training-requested = ["control-plane", "register-dataset", "sweep-leases"]
    sublet-training-finished  = ["control-plane", "lease-broker", "start-training", "sweep-leases"]
  }
  publishing = merge([
    for topic, units in local.publishers : { for unit in units : "${topic}/${unit}" => { topic = topic, unit = unit } }
  ]...)
}

resource "google_pubsub_topic" "fact" {
  for_each = local.publishers

  project                    = var.project
  name                       = each.key
  message_retention_duration = "604800s"
}

resource "google_pubsub_topic" "dead_letters" {
  project                    = var.project
  name                       = "sublet-dead-letters"
  message_retention_duration = "2678400s"
}

resource "google_pubsub_topic_iam_member" "publisher" {
  for_each = local.publishing

  project = var.project
  topic   = google_pubsub_topic.fact[each.value.topic].name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.unit[each.value.unit].member
}
