variable "project" {
  description = "The project that sublet runs in; one of its own, so that its budget and its audit log are sublet's alone."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "The project is given by its id (6 to 30 of a-z, 0-9 and '-'), not by its number or its name."
  }
}

variable "region" {
  description = "Where everything runs and is stored; it must offer the accelerator that trains."
  type        = string
  default     = "europe-west4"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "The region is one region, such as europe-west4; sublet has no zones and no multi-regions."
  }
}

variable "scheduler_region" {
  description = "Where Cloud Scheduler rings the sweep from, if the region has none; null means the same region."
  type        = string
  default     = null
}

variable "accounts" {
  description = "The accounts (tenants), by id: the numbers of the projects whose buckets are theirs, how many data accounts their jobs take turns with, whether those are never disabled (always_on), and whether each of their buckets has to carry a label that only its owner can put there (challenge_required). null leaves the last two to the account's own admins."
  type = map(object({
    project_numbers    = list(number)
    num_data_accounts  = optional(number, 2)
    always_on          = optional(bool)
    challenge_required = optional(bool)
  }))
  default = {}

  validation {
    condition     = alltrue([for id in keys(var.accounts) : can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", id))])
    error_message = "An account's id is 2 to 20 of a-z, 0-9 and '-', and begins with a letter: its service accounts are named after it."
  }
  validation {
    condition     = !contains(keys(var.accounts), "canary")
    error_message = "The account `canary` is the smoke test's own."
  }
  validation {
    condition     = alltrue([for account in values(var.accounts) : length(account.project_numbers) > 0])
    error_message = "An account without a project number could prove no bucket to be its own."
  }
  validation {
    condition     = alltrue([for account in values(var.accounts) : account.num_data_accounts >= 1 && account.num_data_accounts <= 9])
    error_message = "An account has 1 to 9 data accounts; 2 let a job start while the last token of another dies."
  }
}

variable "canary_until" {
  description = "Until when the account `canary` may read its bucket, which the smoke test drops a file into; RFC 3339 in UTC. null makes neither."
  type        = string
  default     = null

  validation {
    condition     = var.canary_until == null || can(regex("^[0-9-]{10}T[0-9:]{8}Z$", var.canary_until))
    error_message = "The canary's access ends at a moment in UTC: YYYY-MM-DDThh:mm:ssZ."
  }
}

variable "watched_buckets" {
  description = "Buckets of this same project and region whose new objects Eventarc announces. Customers' buckets are in other projects and announce themselves (terraform/customer-bucket)."
  type        = set(string)
  default     = []
}

variable "images" {
  description = "The images to run, each by digest, as `make deploy` builds and records them."
  type = object({
    control-plane  = string
    lease-broker   = string
    sublet-trainer = string
  })

  validation {
    condition     = alltrue([for image in values(var.images) : can(regex("@sha256:[0-9a-f]{64}$", image))])
    error_message = "An image is given by digest (NAME@sha256:...): a tag can be moved to other code after it was looked at."
  }
}

variable "accelerator" {
  description = "The GPU that trains, one for each job. L4 has 24 GB, RTX PRO 6000 has 96 GB."
  type        = string
  default     = "nvidia-l4"

  validation {
    condition     = contains(["nvidia-l4", "nvidia-rtx-pro-6000"], var.accelerator)
    error_message = "Cloud Run jobs offer nvidia-l4 and nvidia-rtx-pro-6000."
  }
}

variable "vertex_accelerators" {
  description = "Accelerators that jobs may ask for on Vertex AI, several at a time, by the API's names. None leaves Vertex AI out; read docs/how-to/vertex-ai.md first."
  type        = set(string)
  default     = []

  validation {
    condition = alltrue([
      for name in var.vertex_accelerators : contains([
        "NVIDIA_A100_40GB", "NVIDIA_A100_80GB", "NVIDIA_B200_180GB", "NVIDIA_H100_80GB", "NVIDIA_H200_141GB", "NVIDIA_L4_24GB",
      ], name)
    ])
    error_message = "Vertex AI trains on NVIDIA_A100_40GB, NVIDIA_A100_80GB, NVIDIA_B200_180GB, NVIDIA_H100_80GB, NVIDIA_H200_141GB and NVIDIA_L4_24GB."
  }
}

variable "vertex_strategy" {
  description = "How Vertex AI finds machines: SPOT is cheap and may take them away, FLEX_START waits for them up to 12 hours, STANDARD wants them now. Fewer than 8 H100 come only as SPOT or FLEX_START."
  type        = string
  default     = "SPOT"

  validation {
    condition     = contains(["FLEX_START", "SPOT", "STANDARD"], var.vertex_strategy)
    error_message = "The strategy is SPOT, FLEX_START or STANDARD."
  }
}

variable "training_limit_s" {
  description = "How long one attempt of a training may take. Cloud Run ends GPU tasks after an hour; the next attempt resumes at the last checkpoint."
  type        = number
  default     = 3600

  validation {
    condition     = var.training_limit_s >= 600 && var.training_limit_s <= 3600
    error_message = "Cloud Run gives a GPU task at most 3600 s; under 600 s, starting would be most of it."
  }
}

variable "num_training_retries" {
  description = "How often Cloud Run starts a task again that was ended by maintenance, by its time limit or by a fault."
  type        = number
  default     = 3

  validation {
    condition     = var.num_training_retries >= 1 && var.num_training_retries <= 10
    error_message = "GPU tasks are ended for maintenance, so at least 1 retry is needed; at most 10 are allowed."
  }
}

variable "firestore_has_own_key" {
  description = "Encrypt the registry with the key of this deployment too. Google grants that on request: the quota of such databases is 0 until then."
  type        = bool
  default     = false
}

variable "protects_data" {
  description = "Refuse to destroy what cannot be made again: the registry, the keys, the audit log. `make destroy` says false."
  type        = bool
  default     = true
}

variable "locks_audit_log" {
  description = "Lock the audit log's bucket, so that nobody, its owner included, can shorten or empty it. This cannot be undone, and keeps the project from being emptied until the days are over."
  type        = bool
  default     = true
}

variable "audit_log_days" {
  description = "How many days the audit log is kept."
  type        = number
  default     = 400

  validation {
    condition     = var.audit_log_days >= 90 && var.audit_log_days <= 3650
    error_message = "The audit log is kept 90 to 3650 days: a receipt must stay checkable for a while."
  }
}

variable "alerts_to" {
  description = "The address that is written to when access could not be ended, a message could not be delivered, or a trainer falls silent."
  type        = string

  validation {
    condition     = can(regex("^[^@[:space:]]+@[^@[:space:]]+$", var.alerts_to))
    error_message = "Somebody must hear of a lease that could not be ended: give one address, NAME@DOMAIN."
  }
}

variable "subnet_range" {
  description = "The addresses of the units' network. Direct VPC egress takes several for each instance while it starts."
  type        = string
  default     = "10.77.0.0/24"

  validation {
    condition     = can(cidrnetmask(var.subnet_range)) && tonumber(try(split("/", var.subnet_range)[1], 32)) <= 26
    error_message = "The range is IPv4 in CIDR notation, /26 or larger: Cloud Run refuses to start in less."
  }
}

variable "access_policy" {
  description = "The number of the organisation's access policy, to add a VPC Service Controls perimeter in dry run; null adds none."
  type        = string
  default     = null

  validation {
    condition     = var.access_policy == null || can(regex("^[0-9]+$", var.access_policy))
    error_message = "The access policy is given by its number: gcloud access-context-manager policies list."
  }
}
