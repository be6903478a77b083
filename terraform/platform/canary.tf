# An account and a bucket that nobody else uses: what the smoke test drops a file into, through the very grants
# and notification that a customer applies. Its access ends a day after a deployment.

locals {
  canary = {
    for id in var.canary_until == null ? [] : ["canary"] :
    id => {
      project_numbers    = [tonumber(local.project_number)]
      num_data_accounts  = 2
      always_on          = false
      challenge_required = false
    }
  }
}

resource "google_storage_bucket" "canary" {
  for_each = local.canary

  project                     = var.project
  name                        = "${var.project}-sublet-canary"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true

  encryption {
    default_kms_key_name = local.key
  }

  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = 7
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

module "canary" {
  source   = "../customer-bucket"
  for_each = google_storage_bucket.canary

  project       = var.project
  bucket        = each.value.name
  access_until  = var.canary_until
  verifier      = local.emails["sublet-verifier"]
  account_email = "${google_service_account.account[each.key].account_id}@${var.project}.iam.gserviceaccount.com"
  data_accounts = toset([
    for name, owner in local.data_accounts : "${name}@${var.project}.iam.gserviceaccount.com" if owner == each.key
  ])
  topic = "projects/${var.project}/topics/${google_pubsub_topic.objects[each.key].name}"

  depends_on = [google_pubsub_topic_iam_member.announcer, google_service_account.data]
}
