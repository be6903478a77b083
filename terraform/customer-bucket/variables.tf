variable "project" {
  description = "The customer's own project, which the bucket is in."
  type        = string
}

variable "bucket" {
  description = "An existing bucket with uniform bucket-level access. Its policy is added to, never replaced."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "The bucket is given by its name alone, without gs:// and without a path."
  }
}

variable "prefix" {
  description = "The folder that files to train on are dropped into, ending in '/'. Nothing outside of it can be read."
  type        = string
  default     = "data/"

  validation {
    condition     = can(regex("^[^/*?#\"'\\\\\\r\\n][^*?#\"'\\\\\\r\\n]*/$", var.prefix))
    error_message = "The prefix is a folder that ends in '/'; without the slash, its neighbours would match too."
  }
}

variable "output_prefix" {
  description = "The folder that models may be created under, ending in '/'. It must not contain watched files, nor lie among them."
  type        = string
  default     = "models/"

  validation {
    condition     = can(regex("^[^/*?#\"'\\\\\\r\\n][^*?#\"'\\\\\\r\\n]*/$", var.output_prefix))
    error_message = "The output prefix is a folder that ends in '/'; without the slash, its neighbours would match too."
  }
  validation {
    condition     = !startswith(var.output_prefix, var.prefix) && !startswith(var.prefix, var.output_prefix)
    error_message = "The output prefix and the prefix must not contain each other: each model written would start a training."
  }
}

variable "watch" {
  description = "What the watch is called that the last output creates."
  type        = string
  default     = "drops"

  validation {
    condition     = can(regex("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$", var.watch))
    error_message = "A watch's name is 1 to 63 of a-z, 0-9 and '-', and begins with a letter."
  }
}

variable "access_until" {
  description = "When the grants end by themselves, RFC 3339 in UTC, such as 2027-06-30T00:00:00Z. Apply again with a later date to go on; a job that could outlast it is refused."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", var.access_until)) && can(formatdate("YYYY", var.access_until))
    error_message = "The end of access is a moment in UTC: YYYY-MM-DDThh:mm:ssZ."
  }
}

variable "verifier" {
  description = "The control plane's principal, as `sublet get account` prints it."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]+@[a-z0-9-]+\\.iam\\.gserviceaccount\\.com$", var.verifier))
    error_message = "The verifier is the address of a service account."
  }
}

variable "account_email" {
  description = "The sublet account's own email, as `sublet get account` prints it. Whose bucket this is, is told by it."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]+@[a-z0-9-]+\\.iam\\.gserviceaccount\\.com$", var.account_email))
    error_message = "The account's email is the address of a service account; a group or a domain proves no tenant."
  }
}

variable "data_accounts" {
  description = "The data accounts of this sublet account, as `sublet get account` prints them."
  type        = set(string)

  validation {
    condition     = length(var.data_accounts) > 0 && alltrue([for email in var.data_accounts : can(regex("^[a-z0-9-]+@[a-z0-9-]+\\.iam\\.gserviceaccount\\.com$", email))])
    error_message = "Each data account is the address of a service account, and there is at least one."
  }
}

variable "topic" {
  description = "The account's own topic, projects/PROJECT/topics/TOPIC, for the bucket's notifications."
  type        = string

  validation {
    condition     = can(regex("^projects/[^/]+/topics/sublet-objects-[a-z0-9-]+$", var.topic))
    error_message = "The topic is the account's own, projects/PROJECT/topics/sublet-objects-ACCOUNT: the account is told by it."
  }
}
