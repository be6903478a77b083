# One topic for each type of fact (docs/events.md), one for what could not be delivered, and the deliveries.

locals {
  publishers = {
    sublet-object-found       = ["sweep-leases"]
    sublet-dataset-registered = ["control-plane", "register-dataset", "sweep-leases"]
    sublet-dataset-refused    = ["control-plane", "register-dataset", "sweep-leases"]
    sublet-training-requested = ["control-plane", "register-dataset", "sweep-leases"]
    sublet-training-finished  = ["control-plane", "lease-broker", "register-dataset", "start-training", "sweep-leases"]
  }
  publishing = merge([
    for topic, units in local.publishers : { for unit in units : "${topic}/${unit}" => { topic = topic, unit = unit } }
  ]...)

  dead_letters = "projects/${var.project}/subscriptions/${google_pubsub_subscription.dead_letters.name}"

  # A subscription is named as its topic is: the account of an announcement is told by it.
  deliveries = merge(
    {
      (google_pubsub_topic.fact["sublet-object-found"].name)       = "register-dataset"
      (google_pubsub_topic.fact["sublet-training-requested"].name) = "start-training"
      (google_pubsub_topic.fact["sublet-training-finished"].name)  = "revoke-access"
    },
    { for topic in google_pubsub_topic.objects : topic.name => "register-dataset" },
  )
}

resource "google_pubsub_topic" "fact" {
  for_each = local.publishers

  project                    = var.project
  name                       = each.key
  kms_key_name               = local.key
  message_retention_duration = "604800s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_pubsub_topic_iam_member" "publisher" {
  for_each = local.publishing

  project = var.project
  topic   = google_pubsub_topic.fact[each.value.topic].name
  role    = "roles/pubsub.publisher"
  member  = local.members[each.value.unit]
}

resource "google_pubsub_subscription" "delivery" {
  for_each = local.deliveries

  project                    = var.project
  name                       = each.key
  topic                      = "projects/${var.project}/topics/${each.key}"
  ack_deadline_seconds       = 600
  message_retention_duration = "604800s"

  push_config {
    push_endpoint = "${local.urls[each.value]}/projects/${var.project}/topics/${each.key}"

    oidc_token {
      service_account_email = local.emails["event-sender"]
      audience              = local.urls[each.value]
    }
  }

  retry_policy {
    minimum_backoff = "1s"
    maximum_backoff = "60s"
  }

  dead_letter_policy {
    dead_letter_topic     = "projects/${var.project}/topics/${google_pubsub_topic.dead_letters.name}"
    max_delivery_attempts = 50
  }

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic" "dead_letters" {
  project                    = var.project
  name                       = "sublet-dead-letters"
  kms_key_name               = local.key
  message_retention_duration = "2678400s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

# Pulled by the sweep, which quarantines and counts what it finds.
resource "google_pubsub_subscription" "dead_letters" {
  project                    = var.project
  name                       = google_pubsub_topic.dead_letters.name
  topic                      = "projects/${var.project}/topics/${google_pubsub_topic.dead_letters.name}"
  ack_deadline_seconds       = 600
  message_retention_duration = "2678400s"

  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_subscription_iam_member" "sweep_reads_dead_letters" {
  project      = var.project
  subscription = google_pubsub_subscription.dead_letters.name
  role         = "roles/pubsub.subscriber"
  member       = local.members["sweep-leases"]
}

# Pub/Sub's own agent moves a message from the subscription that gave up to the dead letters.
resource "google_pubsub_topic_iam_member" "gives_up" {
  project = var.project
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${local.agents["pubsub"]}"
}

resource "google_pubsub_subscription_iam_member" "gives_up" {
  for_each = google_pubsub_subscription.delivery

  project      = var.project
  subscription = each.value.name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:${local.agents["pubsub"]}"
}
