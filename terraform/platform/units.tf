# The deploy units: one map, from which functions.tf, services.tf, training.tf and identities.tf are made. A
# unit's name is that of its folder, of its identity, and of what runs it.
#
# `reads` are the settings of sublet/deployment.py that the unit asks for; nothing else is in its environment.

locals {
  functions = {
    register-dataset = {
      purpose     = "Registers datasets."
      entry_point = "register_dataset"
      memory      = "512Mi"
      # Events of a burst wait for one another, and are handled eight at a time.
      concurrency = 24
      # Rows are read through it, at some 50 MB/s.
      timeout_s = 540
      reads     = ["SUBLET_BROKER_URL", "SUBLET_PROJECT", "SUBLET_VERIFIER"]
    }
    start-training = {
      purpose     = "Starts training containers."
      entry_point = "start_training"
      memory      = "512Mi"
      concurrency = 8
      timeout_s   = 120
      reads       = concat(["SUBLET_BROKER_URL", "SUBLET_PROJECT", "SUBLET_TRAINING_JOB"], local.offer, local.runs_on_vertex)
    }
    revoke-access = {
      purpose     = "Drives leases to their end."
      entry_point = "revoke_access"
      memory      = "512Mi"
      concurrency = 8
      timeout_s   = 120
      reads       = ["SUBLET_BROKER_URL"]
    }
    sweep-leases = {
      purpose     = "Sweeps what events missed."
      entry_point = "sweep_leases"
      memory      = "512Mi"
      concurrency = 8
      timeout_s   = 540
      reads = concat([
        "SUBLET_BROKER_URL", "SUBLET_DEAD_LETTERS", "SUBLET_PROJECT", "SUBLET_TRAINING_JOB", "SUBLET_VERIFIER",
      ], local.num_vertex == 0 ? [] : local.offer, local.runs_on_vertex)
    }
  }

  services = {
    control-plane = {
      purpose = "The public API."
      # Its callers have an API key and no Google identity, so it checks them itself.
      is_public     = true
      num_instances = { min = 0, max = 10 }
      reads         = concat(["SUBLET_BROKER_URL", "SUBLET_PROJECT", "SUBLET_VERIFIER"], local.offer)
      secrets       = {}
    }
    lease-broker = {
      purpose       = "Mints tokens, lights and darkens data accounts."
      is_public     = false
      num_instances = { min = 0, max = 10 }
      reads = [
        "SUBLET_DISPATCHERS", "SUBLET_LISTERS", "SUBLET_PROJECT", "SUBLET_RECEIPT_KEY", "SUBLET_REVOKERS",
        "SUBLET_SELF_URL", "SUBLET_TRAINERS", "SUBLET_TRAINER_IMAGE", "SUBLET_VERIFIER", "SUBLET_VERIFIERS",
      ]
      secrets = { SUBLET_SEAL_KEY = "sublet-seal-key" }
    }
  }

  # Which machines a job may ask for, and where those are that Cloud Run has not.
  offer          = concat(["SUBLET_CLOUD_RUN_ACCELERATOR"], local.num_vertex == 0 ? [] : ["SUBLET_VERTEX_ACCELERATORS"])
  runs_on_vertex = local.num_vertex == 0 ? [] : ["SUBLET_VERTEX_AI", "SUBLET_VERTEX_TEMPLATE"]

  # A function's door checks who rings, and Cloud Run has checked that sender's signature before.
  door = ["SUBLET_INVOKERS_CHECKED_BY", "SUBLET_SELF_URL", "SUBLET_SENDERS"]

  settings = {
    SUBLET_BROKER_URL            = local.urls["lease-broker"]
    SUBLET_CLOUD_RUN_ACCELERATOR = local.accelerators[var.accelerator]
    SUBLET_DEAD_LETTERS          = local.dead_letters
    SUBLET_DISPATCHERS           = local.emails["start-training"]
    SUBLET_INVOKERS_CHECKED_BY   = "cloud-run"
    SUBLET_LISTERS               = local.emails["sweep-leases"]
    SUBLET_PROJECT               = var.project
    SUBLET_RECEIPT_KEY           = "kms:${local.receipt_key}/cryptoKeyVersions/1"
    SUBLET_REGISTRY              = "firestore:${local.database}"
    SUBLET_REVOKERS              = "${local.emails["revoke-access"]},${local.emails["sweep-leases"]}"
    SUBLET_SENDERS               = local.emails["event-sender"]
    SUBLET_TRAINER_IMAGE         = var.images["sublet-trainer"]
    SUBLET_TRAINERS              = local.emails["sublet-trainer"]
    SUBLET_TRAINING_JOB          = local.training_job
    SUBLET_VERIFIER              = local.emails["sublet-verifier"]
    SUBLET_VERTEX_ACCELERATORS   = join(",", sort(var.vertex_accelerators))
    SUBLET_VERTEX_AI             = local.vertex
    SUBLET_VERTEX_TEMPLATE       = local.vertex_template
    SUBLET_VERIFIERS             = "${local.emails["register-dataset"]},${local.emails["control-plane"]}"
  }

  units = merge(local.functions, local.services)

  # Known before anything is made: a unit is told its own address.
  urls = { for name in keys(local.units) : name => "https://${name}-${local.project_number}.${var.region}.run.app" }

  environments = {
    for name, unit in local.units : name => {
      for key in concat(["SUBLET_REGISTRY"], contains(keys(local.functions), name) ? local.door : [], unit.reads) :
      key => merge(local.settings, { SUBLET_SELF_URL = local.urls[name] })[key]
    }
  }
}
