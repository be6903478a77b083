output "verifier" {
  description = "The principal that customers grant a look at their bucket's policy."
  value       = google_service_account.unit["sublet-verifier"].email
}
