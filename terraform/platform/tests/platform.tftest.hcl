# What one apply makes, in numbers and in the values that matter; and what no apply takes.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
  mock_data "google_logging_project_cmek_settings" {
    defaults = { service_account_id = "cmek-p123456789012@gcp-sa-logging.iam.gserviceaccount.com" }
  }
}

variables {
  project   = "sublet-test"
  alerts_to = "somebody@example.com"
  accounts = {
    acme   = { project_numbers = [111111111111] }
    globex = { project_numbers = [222222222222, 333333333333], num_data_accounts = 1 }
  }
  images = {
    control-plane  = "europe-west4-docker.pkg.dev/p/sublet/control-plane@sha256:1111111111111111111111111111111111111111111111111111111111111111"
    lease-broker   = "europe-west4-docker.pkg.dev/p/sublet/lease-broker@sha256:2222222222222222222222222222222222222222222222222222222222222222"
    sublet-trainer = "europe-west4-docker.pkg.dev/p/sublet/sublet-trainer@sha256:3333333333333333333333333333333333333333333333333333333333333333"
  }
}

run "a_system" {
  command = plan

  assert {
    condition     = length(google_cloudfunctions2_function.unit) == 4 && length(google_cloud_run_v2_service.unit) == 2
    error_message = "Four functions and two services are deployed."
  }
  assert {
    condition     = length(google_service_account.unit) == 10
    error_message = "Each unit has an identity; the trainer, the verifier, the sender and the builder have one too."
  }
  assert {
    condition     = length(google_pubsub_topic.fact) == 5 && length(google_pubsub_topic_iam_member.publisher) == 15
    error_message = "Five topics of facts, and those who publish to them."
  }
  assert {
    condition     = google_cloudfunctions2_function.unit["sweep-leases"].service_config[0].environment_variables["SUBLET_SELF_URL"] == "https://sweep-leases-123456789012.europe-west4.run.app"
    error_message = "A unit is told its own address before it is made."
  }
  assert {
    condition     = google_cloud_scheduler_job.sweep.schedule == "* * * * *" && google_cloud_scheduler_job.sweep.http_target[0].oidc_token[0].audience == "https://sweep-leases-123456789012.europe-west4.run.app"
    error_message = "The sweep is rung each minute, with a token for it."
  }
  assert {
    condition     = google_cloud_run_v2_job.trainer.template[0].template[0].node_selector[0].accelerator == "nvidia-l4"
    error_message = "An L4 trains unless another is asked for."
  }
  assert {
    condition     = google_firestore_database.registry.delete_protection_state == "DELETE_PROTECTION_ENABLED" && google_logging_project_bucket_config.audit.locked
    error_message = "What cannot be made again is protected."
  }
  assert {
    condition     = length(google_firestore_index.query) == length(jsondecode(file("firestore_indexes.json")))
    error_message = "Each composite index of the file is made."
  }
  assert {
    condition     = length(google_compute_network.vertex) == 0 && length(google_project_iam_member.custom_jobs) == 0 && !contains(keys(google_project_service.api), "aiplatform.googleapis.com") && !contains(keys(google_cloudfunctions2_function.unit["start-training"].service_config[0].environment_variables), "SUBLET_VERTEX_AI")
    error_message = "Vertex AI is left out unless accelerators are named."
  }
  assert {
    condition     = length(google_eventarc_trigger.object_finalized) == 0 && length(google_access_context_manager_service_perimeter.dry_run) == 0
    error_message = "Eventarc and the perimeter are made where they are asked for."
  }

  assert {
    condition     = sort(keys(google_service_account.data)) == tolist(["data-acme-1", "data-acme-2", "data-globex-1"])
    error_message = "An account has its own data accounts, two unless it asks for another number."
  }
  assert {
    condition     = google_pubsub_subscription.delivery["sublet-objects-acme"].push_config[0].push_endpoint == "https://register-dataset-123456789012.europe-west4.run.app/projects/sublet-test/topics/sublet-objects-acme"
    error_message = "An account's announcements are delivered to register-dataset."
  }
  assert {
    condition = { for key, grant in google_pubsub_topic_iam_member.announcer : key => grant.member } == {
      "acme/111111111111"   = "serviceAccount:service-111111111111@gs-project-accounts.iam.gserviceaccount.com"
      "globex/222222222222" = "serviceAccount:service-222222222222@gs-project-accounts.iam.gserviceaccount.com"
      "globex/333333333333" = "serviceAccount:service-333333333333@gs-project-accounts.iam.gserviceaccount.com"
    }
    error_message = "Only the agents of an account's own projects publish to its topic."
  }
  assert {
    condition     = output.accounts["globex"].topic == "projects/sublet-test/topics/sublet-objects-globex" && output.accounts["acme"].data_accounts == ["data-acme-1@sublet-test.iam.gserviceaccount.com", "data-acme-2@sublet-test.iam.gserviceaccount.com"]
    error_message = "What a customer needs for terraform/customer-bucket is an output."
  }
}

run "a_larger_system_that_may_go" {
  command = plan

  variables {
    protects_data   = false
    locks_audit_log = false
    region          = "us-central1"
    accelerator     = "nvidia-rtx-pro-6000"
    watched_buckets = ["our-own"]
    access_policy   = "42"
    accounts        = {}
    canary_until    = "2027-01-01T00:00:00Z"

    vertex_accelerators = ["NVIDIA_L4_24GB", "NVIDIA_H100_80GB"]
    vertex_strategy     = "FLEX_START"
  }

  assert {
    condition     = google_cloud_run_v2_job.trainer.template[0].template[0].containers[0].resources[0].limits == tomap({ cpu = "20", memory = "80Gi", "nvidia.com/gpu" = "1" })
    error_message = "An RTX PRO 6000 comes with 20 CPUs and 80 GiB at least."
  }
  assert {
    condition     = output.canary.bucket == "sublet-test-sublet-canary" && keys(output.accounts) == ["canary"] && module.canary["canary"].create_watch == "sublet create watch drops --bucket sublet-test-sublet-canary --prefix data/ --output-prefix models/ --base-model BASE_MODEL"
    error_message = "The smoke test has an account and a bucket of its own, granted as a customer grants."
  }
  assert {
    condition     = alltrue([for topic in google_pubsub_topic.fact : one(topic.message_storage_policy).allowed_persistence_regions == toset(["us-central1"])])
    error_message = "Messages stay in the region."
  }
  assert {
    condition     = length(google_eventarc_trigger.object_finalized) == 1 && length(google_access_context_manager_service_perimeter.dry_run) == 1
    error_message = "Eventarc and the perimeter are made where they are asked for."
  }
  assert {
    condition     = google_cloudfunctions2_function.unit["start-training"].service_config[0].environment_variables["SUBLET_VERTEX_ACCELERATORS"] == "NVIDIA_H100_80GB,NVIDIA_L4_24GB" && google_cloudfunctions2_function.unit["start-training"].service_config[0].environment_variables["SUBLET_CLOUD_RUN_ACCELERATOR"] == "NVIDIA_RTX_PRO_6000_96GB"
    error_message = "What jobs may ask for is said by the API's names."
  }
  assert {
    condition     = jsondecode(local.vertex_template).jobSpec.scheduling == { timeout = "43200s", strategy = "FLEX_START", restartJobOnWorkerRestart = true, maxWaitDuration = "43200s" } && jsondecode(local.vertex_template).jobSpec.pscInterfaceConfig.networkAttachment == "projects/123456789012/regions/us-central1/networkAttachments/sublet-vertex"
    error_message = "A custom job waits for its machines no longer than its lease lives, and has a leg in our network."
  }
  assert {
    condition     = google_kms_crypto_key.sublet.deletion_policy == "DELETE" && google_firestore_database.registry.deletion_policy == "DELETE" && google_logging_project_bucket_config.audit.deletion_policy == "DELETE" && google_storage_bucket.base_models.force_destroy && !google_cloud_run_v2_job.trainer.deletion_protection
    error_message = "`make destroy` takes everything."
  }
}

run "refuses_nonsense" {
  command = plan

  variables {
    project              = "Sublet"
    region               = "europe"
    accounts             = { Acme = { project_numbers = [], num_data_accounts = 0 } }
    images               = { control-plane = "a:latest", lease-broker = "b", sublet-trainer = "c" }
    accelerator          = "nvidia-h100"
    vertex_accelerators  = ["NVIDIA_T4"]
    vertex_strategy      = "CHEAP"
    training_limit_s     = 43200
    num_training_retries = 0
    audit_log_days       = 7
    alerts_to            = "nobody"
    subnet_range         = "10.0.0.0/28"
    access_policy        = "accessPolicies/1"
  }

  expect_failures = [
    var.project, var.region, var.accounts, var.images, var.accelerator, var.vertex_accelerators, var.vertex_strategy, var.training_limit_s,
    var.num_training_retries, var.audit_log_days, var.alerts_to, var.subnet_range, var.access_policy,
  ]
}
