output "base_url" {
  description = "The API: SUBLET_BASE_URL of every client."
  value       = local.urls["control-plane"]
}

output "verifier" {
  description = "The principal that customers grant a look at their bucket's policy."
  value       = local.emails["sublet-verifier"]
}

output "registry" {
  description = "SUBLET_REGISTRY of every unit, for whoever writes accounts into it."
  value       = local.settings["SUBLET_REGISTRY"]
}

output "accounts" {
  description = "What each account grants on its buckets and publishes to: the arguments of terraform/customer-bucket."
  value = {
    for id, account in local.accounts : id => {
      project_numbers = account.project_numbers
      account_email   = "${google_service_account.account[id].account_id}@${var.project}.iam.gserviceaccount.com"
      data_accounts = [
        for name, owner in local.data_accounts : "${google_service_account.data[name].account_id}@${var.project}.iam.gserviceaccount.com" if owner == id
      ]
      topic              = "projects/${var.project}/topics/${google_pubsub_topic.objects[id].name}"
      always_on          = account.always_on
      challenge_required = account.challenge_required
    }
  }
}

output "base_models" {
  description = "The bucket that base models are put into, a folder for each."
  value       = google_storage_bucket.base_models.name
}

output "repository" {
  description = "Where images are pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "canary" {
  description = "The bucket that the smoke test drops a file into, and until when it may; null if there is none."
  value       = one([for bucket in google_storage_bucket.canary : { bucket = bucket.name, until = var.canary_until }])
}
