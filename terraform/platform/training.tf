# The training job. Each training is one execution of it, told only which lease to claim. No identity here can
# read a customer's bucket: what the trainer reads, it reads with the tokens of its lease.

locals {
  training_job = "projects/${var.project}/locations/${var.region}/jobs/${local.trainer}"
  trainer      = "sublet-trainer"

  # What an accelerator asks for at least. A checkpoint's tensors are written to memory, hence the room.
  machines = {
    nvidia-l4           = { cpu = "8", memory = "32Gi" }
    nvidia-rtx-pro-6000 = { cpu = "20", memory = "80Gi" }
  }
}

resource "google_cloud_run_v2_job" "trainer" {
  project             = var.project
  name                = local.trainer
  location            = var.region
  deletion_protection = var.protects_data

  template {
    task_count  = 1
    parallelism = 1

    template {
      service_account               = local.emails["sublet-trainer"]
      execution_environment         = "EXECUTION_ENVIRONMENT_GEN2"
      encryption_key                = local.key
      gpu_zonal_redundancy_disabled = true
      max_retries                   = var.num_training_retries
      timeout                       = "${var.training_limit_s}s"

      node_selector {
        accelerator = var.accelerator
      }

      containers {
        image = var.images["sublet-trainer"]

        resources {
          limits = merge(local.machines[var.accelerator], { "nvidia.com/gpu" = "1" })
        }

        env {
          name  = "SUBLET_BROKER_URL"
          value = local.urls["lease-broker"]
        }

        env {
          name  = "SUBLET_MODELS_DIR"
          value = "/models"
        }

        volume_mounts {
          name       = "base-models"
          mount_path = "/models"
        }
      }

      volumes {
        name = "base-models"

        gcs {
          bucket        = google_storage_bucket.base_models.name
          read_only     = true
          mount_options = ["uid=65532", "gid=65532"]
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
  }

  depends_on = [google_kms_crypto_key_iam_member.agent, google_storage_bucket_iam_member.trainer]
}

# --- who may start and end executions -------------------------------------------------------------

locals {
  execution_roles = {
    subletExecutionStarter = {
      unit        = "start-training"
      permissions = ["run.executions.list", "run.jobs.run", "run.jobs.runWithOverrides"]
    }
    subletExecutionCanceller = {
      unit        = "sweep-leases"
      permissions = ["run.executions.cancel", "run.executions.get", "run.executions.list"]
    }
  }
}

resource "google_project_iam_custom_role" "execution" {
  for_each = local.execution_roles

  project     = var.project
  role_id     = each.key
  title       = each.key
  description = "What ${each.value.unit} does with executions of the training job."
  permissions = each.value.permissions
}

resource "google_cloud_run_v2_job_iam_member" "execution" {
  for_each = local.execution_roles

  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_job.trainer.name
  role     = "projects/${var.project}/roles/${google_project_iam_custom_role.execution[each.key].role_id}"
  member   = local.members[each.value.unit]
}

# --- base models ----------------------------------------------------------------------------------

# Public weights, put there by a person; mounted, so that they are in no image.
resource "google_storage_bucket" "base_models" {
  project                     = var.project
  name                        = "${var.project}-sublet-base-models"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.protects_data

  encryption {
    default_kms_key_name = local.key
  }

  versioning {
    enabled = true
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_storage_bucket_iam_member" "trainer" {
  bucket = google_storage_bucket.base_models.name
  role   = "roles/storage.objectViewer"
  member = local.members["sublet-trainer"]
}
