# One identity for each deploy unit, with no key and no right but those given where the thing is declared.

locals {
  identities = merge(
    { for name, unit in local.units : name => unit.purpose },
    {
      sublet-trainer  = "Claims leases; reads base models."
      sublet-verifier = "What customers grant a look at their bucket's policy."
      event-sender    = "Whose ID token Pub/Sub, Eventarc and Scheduler send."
      sublet-builder  = "Builds functions from their source."
    },
  )

  # Written out, so that a plan shows whom it grants what before anything is made.
  emails  = { for name, account in google_service_account.unit : name => "${account.account_id}@${var.project}.iam.gserviceaccount.com" }
  members = { for name, email in local.emails : name => "serviceAccount:${email}" }
}

resource "google_service_account" "unit" {
  for_each = local.identities

  project      = var.project
  account_id   = each.key
  display_name = each.value

  depends_on = [google_project_service.api]
}

resource "google_service_account_iam_member" "acts_as_verifier" {
  for_each = toset(["control-plane", "register-dataset", "lease-broker", "sweep-leases"])

  service_account_id = "projects/${var.project}/serviceAccounts/${local.emails["sublet-verifier"]}"
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.members[each.value]
}
