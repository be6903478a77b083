"""Accounts, users, keys, models and watches as the API shows them."""

from sublet.accounts import CHALLENGE_LABEL, Account, ApiKey, Role, User, UserName
from sublet.api.answers import WELL, Answer, Int64, StatusAnswer, Timestamp, time_to_wire
from sublet.api.machine_fields import machine_shown
from sublet.api.settings import SettingsAnswer, settings_shown
from sublet.codec import rfc3339
from sublet.models import Model, ModelKind, ModelState
from sublet.watches import TrainingTemplate, Watch


class AccountAnswer(Answer, kw_only=True):
    """
    `email` is the address to grant on a bucket; the other principals ride along. `challenge_label`
    is what a challenged account's bucket must carry, where the question names a bucket.
    """

    name: str
    display_name: str
    email: str
    state: str
    status: StatusAnswer
    suspend_state: str
    create_time: Timestamp
    update_time: Timestamp
    control_plane_service_account: str
    data_service_accounts: list[str]
    project_numbers: list[Int64]
    always_on: bool
    challenge_required: bool
    challenge_label: str | None = None

    @classmethod
    def of(cls, account: Account, verifier: str, *, bucket: str = "") -> "AccountAnswer":
        challenge = account.challenge_for(bucket) if bucket else ""
        return cls(
            name=account.name,
            display_name=account.display_name,
            email=account.email,
            state="READY",
            status=WELL,
            suspend_state="UNSUSPENDED",
            create_time=rfc3339(account.created_at),
            update_time=rfc3339(account.updated_at or account.created_at),
            control_plane_service_account=verifier,
            data_service_accounts=[*account.data_accounts],
            project_numbers=[str(number) for number in account.project_numbers],
            always_on=account.always_on,
            challenge_required=account.is_challenged,
            challenge_label=f"{CHALLENGE_LABEL}={challenge}" if challenge else None,
        )


class UserAnswer(Answer, kw_only=True):
    name: str
    display_name: str
    email: str
    role: Role
    service_account: bool
    state: str
    status: StatusAnswer
    create_time: Timestamp
    update_time: Timestamp

    @classmethod
    def of(cls, user: User) -> "UserAnswer":
        return cls(
            name=user.name,
            display_name=user.display_name,
            email=user.email,
            role=user.role,
            service_account=user.is_service_account,
            state="READY",
            status=WELL,
            create_time=rfc3339(user.created_at),
            update_time=rfc3339(user.updated_at),
        )


class ApiKeyAnswer(Answer, kw_only=True):
    """`key` is in the answer that makes it; `secure` says that nobody here knows it any more."""

    key_id: str
    display_name: str
    user: str
    secure: bool
    create_time: Timestamp
    expire_time: Timestamp | None = None
    last_use_time: Timestamp | None = None
    key: str | None = None

    @classmethod
    def of(cls, key: ApiKey, secret: str | None = None) -> "ApiKeyAnswer":
        return cls(
            key_id=key.key_id,
            display_name=key.display_name,
            user=UserName.of(key.account, key.user),
            secure=True,
            create_time=rfc3339(key.created_at),
            expire_time=time_to_wire(key.expires_at),
            last_use_time=time_to_wire(key.used_at),
            key=secret,
        )


class PeftDetails(Answer, kw_only=True):
    base_model: str
    r: int
    target_modules: list[str]


class ModelAnswer(Answer, kw_only=True):
    name: str
    display_name: str
    kind: ModelKind
    state: ModelState
    status: StatusAnswer
    create_time: Timestamp
    update_time: Timestamp
    public: bool
    tunable: bool
    supports_lora: bool
    uri: str
    fine_tuning_job: str | None = None
    peft_details: PeftDetails | None = None

    @classmethod
    def of(cls, model: Model) -> "ModelAnswer":
        is_base = model.adapter is None and model.job is None
        adapter = model.adapter
        return cls(
            name=model.name,
            display_name=model.display_name,
            kind=model.kind,
            state=model.state,
            status=WELL,
            create_time=rfc3339(model.created_at),
            update_time=rfc3339(model.created_at),
            public=is_base,
            tunable=is_base,
            supports_lora=is_base,
            uri=model.uri,
            fine_tuning_job=model.job,
            peft_details=PeftDetails(
                base_model=adapter.base_model,
                r=adapter.rank,
                target_modules=[*adapter.target_modules],
            )
            if adapter
            else None,
        )


class TrainingTemplateAnswer(SettingsAnswer, kw_only=True):
    base_model: str
    output_prefix: str
    accelerator_type: str | None = None
    accelerator_count: int | None = None

    @classmethod
    def of(cls, template: TrainingTemplate) -> "TrainingTemplateAnswer":
        return cls(
            base_model=template.base_model,
            output_prefix=template.output_prefix,
            **settings_shown(template.settings),
            **machine_shown(template.machine),
        )


class WatchAnswer(Answer, kw_only=True):
    name: str
    create_time: Timestamp
    update_time: Timestamp
    created_by: str
    bucket: str
    prefix: str
    enabled: bool
    training_template: TrainingTemplateAnswer | None = None

    @classmethod
    def of(cls, watch: Watch) -> "WatchAnswer":
        return cls(
            name=watch.name,
            create_time=rfc3339(watch.created_at),
            update_time=rfc3339(watch.updated_at or watch.created_at),
            created_by=watch.created_by,
            bucket=watch.bucket,
            prefix=watch.prefix,
            enabled=watch.is_enabled,
            training_template=TrainingTemplateAnswer.of(watch.template) if watch.template else None,
        )
