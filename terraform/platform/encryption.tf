# The keys of this deployment, and the secret that only the lease broker opens.

locals {
  key_ring    = "projects/${var.project}/locations/${var.region}/keyRings/${google_kms_key_ring.sublet.name}"
  key         = "${local.key_ring}/cryptoKeys/${google_kms_crypto_key.sublet.name}"
  receipt_key = "${local.key_ring}/cryptoKeys/${google_kms_crypto_key.receipts.name}"
}

resource "google_kms_key_ring" "sublet" {
  project  = var.project
  name     = "sublet"
  location = var.region

  depends_on = [google_project_service.api]
}

resource "google_kms_crypto_key" "sublet" {
  name                       = "sublet"
  key_ring                   = local.key_ring
  rotation_period            = "7776000s"
  destroy_scheduled_duration = "2592000s"
  deletion_policy            = var.protects_data ? "PREVENT" : "DELETE"

  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = "HSM"
  }
}

# Google's own agents encrypt and decrypt for us; no unit of ours has this right.
resource "google_kms_crypto_key_iam_member" "agent" {
  for_each = local.agents

  crypto_key_id = local.key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:${each.value}"
}

# What receipts are signed with. A verifier holds its public half, so it does not rotate by itself.
resource "google_kms_crypto_key" "receipts" {
  name                       = "sublet-receipts"
  key_ring                   = local.key_ring
  purpose                    = "ASYMMETRIC_SIGN"
  destroy_scheduled_duration = "2592000s"
  deletion_policy            = var.protects_data ? "PREVENT" : "DELETE"

  version_template {
    algorithm        = "EC_SIGN_ED25519"
    protection_level = "SOFTWARE"
  }
}

resource "google_kms_crypto_key_iam_member" "broker_signs" {
  crypto_key_id = local.receipt_key
  role          = "roles/cloudkms.signerVerifier"
  member        = local.members["lease-broker"]
}

# Its value is made by `make deploy` and is in no state file.
resource "google_secret_manager_secret" "unit" {
  for_each = merge([for unit in local.services : { for secret in values(unit.secrets) : secret => secret }]...)

  project             = var.project
  secret_id           = each.key
  version_destroy_ttl = "604800s"

  replication {
    user_managed {
      replicas {
        location = var.region

        customer_managed_encryption {
          kms_key_name = local.key
        }
      }
    }
  }

  depends_on = [google_kms_crypto_key_iam_member.agent]
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = merge([
    for name, unit in local.services : { for secret in values(unit.secrets) : secret => name }
  ]...)

  project   = var.project
  secret_id = google_secret_manager_secret.unit[each.key].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.members[each.value]
}
