# One identity for each deploy unit, with no key and no right but those given where the thing is declared.

locals {
  units = {
    control-plane    = "The public API."
    register-dataset = "Registers datasets."
    start-training   = "Starts training containers."
    revoke-access    = "Drives leases to their end."
    sweep-leases     = "Sweeps what events missed."
    lease-broker     = "Mints tokens, lights and darkens data accounts."
    sublet-trainer   = "Claims leases; has no right of its own."
    sublet-verifier  = "What customers grant a look at their bucket's policy."
    event-sender     = "Whose ID token Pub/Sub and Scheduler send."
  }
}

resource "google_service_account" "unit" {
  for_each = local.units

  project      = var.project
  account_id   = each.key
  display_name = each.value
}

resource "google_service_account_iam_member" "acts_as_verifier" {
  for_each = toset(["control-plane", "register-dataset", "lease-broker"])

  service_account_id = google_service_account.unit["sublet-verifier"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = google_service_account.unit[each.value].member
}
