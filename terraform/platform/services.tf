# The API and the lease broker.

resource "google_cloud_run_v2_service" "unit" {
  for_each = local.services

  project              = var.project
  name                 = each.key
  location             = var.region
  description          = each.value.purpose
  ingress              = each.value.is_public ? "INGRESS_TRAFFIC_ALL" : "INGRESS_TRAFFIC_INTERNAL_ONLY"
  invoker_iam_disabled = each.value.is_public
  deletion_protection  = var.protects_data

  template {
    service_account                  = local.emails[each.key]
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    encryption_key                   = local.key
    timeout                          = "120s"
    max_instance_request_concurrency = 40

    scaling {
      min_instance_count = each.value.num_instances.min
      max_instance_count = each.value.num_instances.max
    }

    containers {
      image = var.images[each.key]

      ports {
        container_port = 8080
      }

      resources {
        limits            = { cpu = "1", memory = "512Mi" }
        cpu_idle          = true
        startup_cpu_boost = true
      }

      startup_probe {
        period_seconds    = 2
        timeout_seconds   = 2
        failure_threshold = 30

        http_get {
          path = "/healthz"
        }
      }

      dynamic "env" {
        for_each = local.environments[each.key]

        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = each.value.secrets

        content {
          name = env.key

          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.unit[env.value].secret_id
              version = "latest"
            }
          }
        }
      }
    }

    vpc_access {
      egress = "ALL_TRAFFIC"

      network_interfaces {
        network    = google_compute_network.sublet.name
        subnetwork = google_compute_subnetwork.units.name
      }
    }
  }

  depends_on = [
    google_kms_crypto_key_iam_member.agent,
    google_secret_manager_secret_iam_member.reader,
  ]
}

# Whom the broker answers: what each of them may ask for, it decides itself.
resource "google_cloud_run_v2_service_iam_member" "asks_broker" {
  for_each = toset(["control-plane", "register-dataset", "start-training", "revoke-access", "sweep-leases", "sublet-trainer"])

  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_service.unit["lease-broker"].name
  role     = "roles/run.invoker"
  member   = local.members[each.value]
}
