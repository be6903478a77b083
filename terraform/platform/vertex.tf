# Vertex AI, for jobs that ask for more than the one GPU that Cloud Run gives. All of it is made only where
# `vertex_accelerators` names some. The custom job is described here as the training job is in training.tf;
# start-training adds the machines and the lease.

locals {
  num_vertex = length(var.vertex_accelerators) > 0 ? 1 : 0
  vertex     = "projects/${var.project}/locations/${var.region}"
  vertex_at  = "service-${local.project_number}@gcp-sa-aiplatform.iam.gserviceaccount.com"

  # What Cloud Run calls an accelerator, and the API.
  accelerators = {
    nvidia-l4           = "NVIDIA_L4_24GB"
    nvidia-rtx-pro-6000 = "NVIDIA_RTX_PRO_6000_96GB"
  }

  # Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/CustomJobSpec
  vertex_template = jsonencode({
    displayName    = local.trainer
    encryptionSpec = { kmsKeyName = local.key }
    jobSpec = {
      workerPoolSpecs = [{
        containerSpec = {
          imageUri = var.images["sublet-trainer"]
          env = [
            { name = "SUBLET_BROKER_URL", value = local.urls["lease-broker"] },
            # Vertex AI mounts what the job's account may read.
            { name = "SUBLET_MODELS_DIR", value = "/gcs/${google_storage_bucket.base_models.name}" },
          ]
        }
      }]
      # A machine that is taken away takes the whole job back to its last checkpoint.
      scheduling = merge(
        { timeout = "43200s", strategy = var.vertex_strategy, restartJobOnWorkerRestart = true },
        var.vertex_strategy == "FLEX_START" ? { maxWaitDuration = "43200s" } : {},
      )
      serviceAccount = local.emails["sublet-trainer"]
      pscInterfaceConfig = {
        networkAttachment = join("", [for leg in google_compute_network_attachment.vertex : "projects/${local.project_number}/regions/${leg.region}/networkAttachments/${leg.name}"])
        dnsPeeringConfigs = [{ domain = "run.app.", targetProject = var.project, targetNetwork = local.vertex_network }]
      }
    }
  })
}

# --- who may start and end custom jobs, and as whom they run ---------------------------------------

locals {
  custom_job_roles = local.num_vertex == 0 ? {} : {
    subletCustomJobStarter = {
      unit        = "start-training"
      permissions = ["aiplatform.customJobs.create", "aiplatform.customJobs.list"]
    }
    subletCustomJobCanceller = {
      unit        = "sweep-leases"
      permissions = ["aiplatform.customJobs.cancel", "aiplatform.customJobs.get", "aiplatform.customJobs.list"]
    }
  }
}

resource "google_project_iam_custom_role" "custom_jobs" {
  for_each = local.custom_job_roles

  project     = var.project
  role_id     = each.key
  title       = each.key
  description = "What ${each.value.unit} does with custom jobs of Vertex AI."
  permissions = each.value.permissions
}

# A custom job has no policy of its own, so the project is the least that there is.
resource "google_project_iam_member" "custom_jobs" {
  for_each = local.custom_job_roles

  project = var.project
  role    = "projects/${var.project}/roles/${google_project_iam_custom_role.custom_jobs[each.key].role_id}"
  member  = local.members[each.value.unit]
}

# Who creates a custom job names whom it runs as, and may name nobody else.
resource "google_service_account_iam_member" "starts_trainer" {
  count = local.num_vertex

  service_account_id = "projects/${var.project}/serviceAccounts/${local.emails["sublet-trainer"]}"
  role               = "roles/iam.serviceAccountUser"
  member             = local.members["start-training"]
}

# --- its network ------------------------------------------------------------------------------------

# A custom job runs in a network of Google's, with a leg in this one. Google's APIs it reaches from there; the
# lease broker, which answers only callers from inside, it reaches through this leg and the endpoint below.
# Source: https://cloud.google.com/vertex-ai/docs/training/psc-i-egress
locals {
  vertex_network  = "sublet-vertex"
  vertex_range    = "10.78.0.0/24"
  vertex_endpoint = "10.79.0.1"
}

resource "google_compute_network" "vertex" {
  count = local.num_vertex

  project                         = var.project
  name                            = local.vertex_network
  auto_create_subnetworks         = false
  delete_default_routes_on_create = true

  depends_on = [google_project_service.api]
}

resource "google_compute_subnetwork" "vertex" {
  count = local.num_vertex

  project       = var.project
  name          = local.vertex_network
  region        = var.region
  network       = google_compute_network.vertex[0].name
  ip_cidr_range = local.vertex_range
}

resource "google_compute_network_attachment" "vertex" {
  count = local.num_vertex

  project               = var.project
  name                  = local.vertex_network
  region                = var.region
  description           = "Where Vertex AI puts the leg of a custom job."
  connection_preference = "ACCEPT_MANUAL"
  subnetworks           = [google_compute_subnetwork.vertex[0].name]

  lifecycle {
    # Vertex AI adds the project that it runs a job in.
    ignore_changes = [producer_accept_lists]
  }
}

resource "google_compute_global_address" "vertex" {
  count = local.num_vertex

  project      = var.project
  name         = "sublet-vertex-endpoint"
  purpose      = "PRIVATE_SERVICE_CONNECT"
  address_type = "INTERNAL"
  network      = google_compute_network.vertex[0].id
  address      = local.vertex_endpoint
}

# Source: https://cloud.google.com/vpc/docs/configure-private-service-connect-apis
resource "google_compute_global_forwarding_rule" "vertex" {
  count = local.num_vertex

  project               = var.project
  name                  = "subletvertex"
  target                = "vpc-sc"
  network               = google_compute_network.vertex[0].id
  ip_address            = google_compute_global_address.vertex[0].id
  load_balancing_scheme = ""
}

resource "google_compute_firewall" "vertex_to_endpoint" {
  count = local.num_vertex

  project            = var.project
  name               = "sublet-vertex-to-endpoint"
  network            = google_compute_network.vertex[0].name
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = ["${local.vertex_endpoint}/32"]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

resource "google_compute_firewall" "vertex_to_nobody_else" {
  count = local.num_vertex

  project            = var.project
  name               = "sublet-vertex-to-nobody-else"
  network            = google_compute_network.vertex[0].name
  direction          = "EGRESS"
  priority           = 65000
  destination_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }
}

resource "google_dns_managed_zone" "vertex" {
  count = local.num_vertex

  project     = var.project
  name        = "sublet-vertex"
  dns_name    = "run.app."
  description = "Leads to the endpoint in the network of Vertex AI's custom jobs."
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.vertex[0].id
    }
  }
}

resource "google_dns_record_set" "vertex" {
  count = local.num_vertex

  project      = var.project
  managed_zone = google_dns_managed_zone.vertex[0].name
  name         = "*.run.app."
  type         = "A"
  ttl          = 300
  rrdatas      = [local.vertex_endpoint]
}

# --- what Google's agent does for it ----------------------------------------------------------------

resource "google_project_iam_custom_role" "vertex_leg" {
  count = local.num_vertex

  project     = var.project
  role_id     = "subletVertexLeg"
  title       = "subletVertexLeg"
  description = "What Vertex AI's agent does with the network attachment."
  permissions = ["compute.networkAttachments.get", "compute.networkAttachments.update", "compute.regionOperations.get"]
}

resource "google_project_iam_member" "vertex_agent" {
  for_each = local.num_vertex == 0 ? {} : {
    leg = "projects/${var.project}/roles/${google_project_iam_custom_role.vertex_leg[0].role_id}"
    dns = "roles/dns.peer"
  }

  project = var.project
  role    = each.value
  member  = "serviceAccount:${local.vertex_at}"
}
