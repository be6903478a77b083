# The four functions. What may call one is its topic's subscription, Eventarc or Scheduler, as event-sender.

resource "google_storage_bucket_object" "source" {
  for_each = local.functions

  bucket = google_storage_bucket.sources.name
  # Named for its content: the same code is the same object, and other code is another.
  name   = "code/functions/${each.key}-${filesha256("${path.module}/build/${each.key}.zip")}.zip"
  source = "${path.module}/build/${each.key}.zip"
}

resource "google_cloudfunctions2_function" "unit" {
  for_each = local.functions

  project      = var.project
  name         = each.key
  location     = var.region
  description  = each.value.purpose
  kms_key_name = local.key

  build_config {
    runtime           = "python311"
    entry_point       = each.value.entry_point
    service_account   = "projects/${var.project}/serviceAccounts/${local.emails["sublet-builder"]}"
    docker_repository = local.repository

    source {
      storage_source {
        bucket = google_storage_bucket.sources.name
        object = google_storage_bucket_object.source[each.key].name
      }
    }
  }

  service_config {
    service_account_email            = local.emails[each.key]
    ingress_settings                 = "ALLOW_INTERNAL_ONLY"
    available_memory                 = each.value.memory
    available_cpu                    = "1"
    timeout_seconds                  = each.value.timeout_s
    max_instance_count               = 20
    max_instance_request_concurrency = each.value.concurrency
    # The server has a thread for each request that it is given.
    environment_variables = merge(local.environments[each.key], { THREADS = tostring(each.value.concurrency) })
    direct_vpc_egress     = "VPC_EGRESS_ALL_TRAFFIC"

    direct_vpc_network_interface {
      network    = google_compute_network.sublet.name
      subnetwork = google_compute_subnetwork.units.name
    }
  }

  depends_on = [
    google_artifact_registry_repository_iam_member.builder,
    google_kms_crypto_key_iam_member.agent,
    google_project_iam_member.builder_logs,
    google_storage_bucket_iam_member.builder,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "sender" {
  for_each = google_cloudfunctions2_function.unit

  project  = var.project
  location = var.region
  name     = each.value.name
  role     = "roles/run.invoker"
  member   = local.members["event-sender"]
}

resource "google_cloud_scheduler_job" "sweep" {
  project          = var.project
  region           = coalesce(var.scheduler_region, var.region)
  name             = "sublet-sweep"
  description      = "Each minute: whatever the events missed."
  schedule         = "* * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "${local.functions["sweep-leases"].timeout_s}s"

  http_target {
    uri         = local.urls["sweep-leases"]
    http_method = "POST"

    oidc_token {
      service_account_email = local.emails["event-sender"]
      audience              = local.urls["sweep-leases"]
    }
  }

  depends_on = [google_cloudfunctions2_function.unit]
}

# --- buckets of this project ----------------------------------------------------------------------

resource "google_project_iam_member" "storage_announces" {
  count = length(var.watched_buckets) > 0 ? 1 : 0

  project = var.project
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:${local.agents["storage"]}"
}

resource "google_project_iam_member" "sender_receives" {
  count = length(var.watched_buckets) > 0 ? 1 : 0

  project = var.project
  role    = "roles/eventarc.eventReceiver"
  member  = local.members["event-sender"]
}

resource "google_eventarc_trigger" "object_finalized" {
  for_each = var.watched_buckets

  project         = var.project
  location        = var.region
  name            = "sublet-${each.value}"
  service_account = local.emails["event-sender"]

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.storage.object.v1.finalized"
  }

  matching_criteria {
    attribute = "bucket"
    value     = each.value
  }

  destination {
    cloud_run_service {
      service = google_cloudfunctions2_function.unit["register-dataset"].name
      region  = var.region
    }
  }

  depends_on = [google_project_iam_member.storage_announces, google_project_iam_member.sender_receives]
}
