output "create_watch" {
  description = "The command that makes sublet train each file dropped under the prefix; BASE_MODEL is one of `sublet list models`."
  value       = "sublet create watch ${var.watch} --bucket ${var.bucket} --prefix ${var.prefix} --output-prefix ${var.output_prefix} --base-model BASE_MODEL"
}
