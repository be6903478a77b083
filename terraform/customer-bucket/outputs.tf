output "create_watch" {
  description = "The command that makes sublet train each file dropped under data/."
  value       = "sublet create watch ${var.bucket} --bucket ${var.bucket} --prefix data/ --output-prefix ${var.output_prefix} --base-model BASE_MODEL"
}
