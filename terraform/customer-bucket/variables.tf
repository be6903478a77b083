variable "project" {
  description = "The customer's own project, which the bucket is in."
  type        = string
}

variable "bucket" {
  description = "An existing bucket with uniform bucket-level access. Its policy is added to, never replaced."
  type        = string
}

variable "output_prefix" {
  description = "The folder that models may be created under, ending in '/'. It must not contain watched files."
  type        = string
  default     = "models/"

  validation {
    condition     = can(regex("^[^/*?#\"'\\\\].*/$", var.output_prefix))
    error_message = "The output prefix must be a folder that ends in '/'; without the slash, its neighbours would match too."
  }
}

variable "verifier" {
  description = "The control plane's principal, as `sublet get account` prints it."
  type        = string
}

variable "data_accounts" {
  description = "The data accounts of this sublet account, as `sublet get account` prints them."
  type        = set(string)
}

variable "account_email" {
  description = "The sublet account's own email, as `sublet get account` prints it."
  type        = string
}

variable "topic" {
  description = "The account's own topic, projects/PROJECT/topics/TOPIC, for the bucket's notifications."
  type        = string

  validation {
    condition     = can(regex("^projects/[^/]+/topics/[^/]+$", var.topic))
    error_message = "The topic must be given as projects/PROJECT/topics/TOPIC."
  }
}
