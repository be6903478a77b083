# The units' network: to Google's APIs, to Cloud Run's addresses, and nowhere else. A row that leaves the
# trainer leaves by a token of its lease, or not at all.
#
# Direct VPC egress makes an instance wait for its interface: seconds as a rule, a minute or more at worst.

locals {
  # restricted.googleapis.com: the APIs that VPC Service Controls can guard.
  # Source: https://cloud.google.com/vpc/docs/configure-private-google-access
  google = { range = "199.36.153.4/30", addresses = ["199.36.153.4", "199.36.153.5", "199.36.153.6", "199.36.153.7"] }

  zones = {
    googleapis = { dns_name = "googleapis.com.", alias = "restricted.googleapis.com." }
    run        = { dns_name = "run.app.", alias = "run.app." }
  }
}

resource "google_compute_network" "sublet" {
  project                         = var.project
  name                            = "sublet"
  auto_create_subnetworks         = false
  delete_default_routes_on_create = true

  depends_on = [google_project_service.api]
}

resource "google_compute_subnetwork" "units" {
  project                  = var.project
  name                     = "sublet-units"
  region                   = var.region
  network                  = google_compute_network.sublet.name
  ip_cidr_range            = var.subnet_range
  private_ip_google_access = true
}

resource "google_compute_route" "google" {
  project          = var.project
  name             = "sublet-google-apis"
  network          = google_compute_network.sublet.name
  dest_range       = local.google.range
  next_hop_gateway = "default-internet-gateway"
}

resource "google_compute_firewall" "to_google" {
  project            = var.project
  name               = "sublet-to-google-apis"
  network            = google_compute_network.sublet.name
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = [local.google.range]

  allow {
    protocol = "tcp"
    ports    = ["443"]
  }
}

resource "google_compute_firewall" "to_nobody_else" {
  project            = var.project
  name               = "sublet-to-nobody-else"
  network            = google_compute_network.sublet.name
  direction          = "EGRESS"
  priority           = 65000
  destination_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }
}

resource "google_dns_managed_zone" "google" {
  for_each = local.zones

  project     = var.project
  name        = "sublet-${each.key}"
  dns_name    = each.value.dns_name
  description = "Leads to restricted.googleapis.com from the units' network."
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.sublet.id
    }
  }
}

resource "google_dns_record_set" "address" {
  for_each = local.zones

  project      = var.project
  managed_zone = google_dns_managed_zone.google[each.key].name
  name         = each.value.alias
  type         = "A"
  ttl          = 300
  rrdatas      = local.google.addresses
}

resource "google_dns_record_set" "every_name" {
  for_each = local.zones

  project      = var.project
  managed_zone = google_dns_managed_zone.google[each.key].name
  name         = "*.${each.value.dns_name}"
  type         = "CNAME"
  ttl          = 300
  rrdatas      = [each.value.alias]
}
