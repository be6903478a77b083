variable "project" {
  description = "The project that sublet itself runs in."
  type        = string
}

variable "region" {
  description = "Where everything runs; it must offer the accelerator that trains."
  type        = string
  default     = "europe-west4"
}
