# What a customer applies in their own project, and what that does not take.

mock_provider "google" {}

variables {
  project       = "customer-test"
  bucket        = "customer-bucket"
  access_until  = "2027-06-30T00:00:00Z"
  verifier      = "sublet-verifier@sublet-test.iam.gserviceaccount.com"
  account_email = "account-acme@sublet-test.iam.gserviceaccount.com"
  data_accounts = ["data-acme-1@sublet-test.iam.gserviceaccount.com", "data-acme-2@sublet-test.iam.gserviceaccount.com"]
  topic         = "projects/sublet-test/topics/sublet-objects-acme"
}

run "grants" {
  command = plan

  assert {
    condition     = length(google_storage_bucket_iam_member.reader) == 2 && length(google_storage_bucket_iam_member.writer) == 2
    error_message = "Each data account reads and writes."
  }
  assert {
    condition     = google_project_iam_custom_role.verifier.permissions == toset(["storage.buckets.get", "storage.buckets.getIamPolicy", "storage.managedFolders.getIamPolicy", "storage.managedFolders.list"])
    error_message = "The verifier sees the bucket, its policy and its folders' policies, and no object."
  }
  assert {
    condition     = google_storage_notification.finalized.object_name_prefix == "data/" && google_storage_notification.finalized.topic == "projects/sublet-test/topics/sublet-objects-acme"
    error_message = "What is finalised under the prefix is announced to the account's own topic."
  }
  assert {
    condition     = output.create_watch == "sublet create watch drops --bucket customer-bucket --prefix data/ --output-prefix models/ --base-model BASE_MODEL"
    error_message = "The command that is left to do is printed."
  }
}

run "refuses_nonsense" {
  command = plan

  variables {
    bucket        = "gs://customer-bucket/data"
    prefix        = "data"
    access_until  = "next summer"
    verifier      = "group:sublet@example.com"
    account_email = "somebody@example.com"
    data_accounts = []
    topic         = "sublet-objects-acme"
    watch         = "Drops"
  }

  expect_failures = [
    var.bucket, var.prefix, var.access_until, var.verifier, var.account_email,
    var.data_accounts, var.topic, var.watch,
  ]
}

run "refuses_models_among_the_data" {
  command = plan

  variables {
    output_prefix = "data/models*"
  }

  expect_failures = [var.output_prefix]
}
