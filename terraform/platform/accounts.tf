# What each account (tenant) has of its own: the email that it grants on its buckets, the data accounts that
# its jobs read with, and the topic that its buckets announce new objects on.

locals {
  accounts = merge(var.accounts, local.canary)

  data_accounts = merge([
    for id, account in local.accounts : {
      for number in range(1, account.num_data_accounts + 1) : "data-${id}-${number}" => id
    }
  ]...)

  announcers = merge([
    for id, account in local.accounts : {
      for number in account.project_numbers : "${id}/${number}" => { account = id, project_number = number }
    }
  ]...)
}

resource "google_service_account" "account" {
  for_each = local.accounts

  project      = var.project
  account_id   = "account-${each.key}"
  display_name = "accounts/${each.key}: grant this on your bucket"

  depends_on = [google_project_service.api]
}

resource "google_service_account" "data" {
  for_each = local.data_accounts

  project      = var.project
  account_id   = each.key
  display_name = "accounts/${each.value}: reads under leases"
  disabled     = true

  lifecycle {
    # The broker enables it while a lease uses it.
    ignore_changes = [disabled]
  }

  depends_on = [google_project_service.api]
}

resource "google_project_iam_custom_role" "data_account_switch" {
  project     = var.project
  role_id     = "subletDataAccountSwitch"
  title       = "sublet data account switch"
  description = "Lights and darkens a data account, and sees which it is."
  permissions = ["iam.serviceAccounts.disable", "iam.serviceAccounts.enable", "iam.serviceAccounts.get"]
}

resource "google_service_account_iam_member" "broker_switches" {
  for_each = google_service_account.data

  service_account_id = "projects/${var.project}/serviceAccounts/${each.value.account_id}@${var.project}.iam.gserviceaccount.com"
  role               = "projects/${var.project}/roles/${google_project_iam_custom_role.data_account_switch.role_id}"
  member             = local.members["lease-broker"]
}

resource "google_service_account_iam_member" "broker_mints" {
  for_each = google_service_account.data

  service_account_id = "projects/${var.project}/serviceAccounts/${each.value.account_id}@${var.project}.iam.gserviceaccount.com"
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.members["lease-broker"]
}

resource "google_pubsub_topic" "objects" {
  for_each = local.accounts

  project                    = var.project
  name                       = "sublet-objects-${each.key}"
  kms_key_name               = local.key
  message_retention_duration = "604800s"

  message_storage_policy {
    allowed_persistence_regions = [var.region]
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

# The agent of Cloud Storage in the account's own projects, and nobody else: the topic says whose the event is.
resource "google_pubsub_topic_iam_member" "announcer" {
  for_each = local.announcers

  project = var.project
  topic   = google_pubsub_topic.objects[each.value.account].name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:service-${each.value.project_number}@gs-project-accounts.iam.gserviceaccount.com"
}
