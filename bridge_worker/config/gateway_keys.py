"""The names that a gateway's config may have, by their treatment in a worker.

Owns these sets; contract tests compare them with the installed LiteLLM, which is not imported here. Refuses to know the meaning of
a name.
"""

from __future__ import annotations

SECTIONS = frozenset(
    "model_list router_settings litellm_settings general_settings environment_variables credential_list callback_settings "
    "include omni_bridge".split()
)
# Sections for a server: its users, its own endpoints, its database.
SERVER_SECTIONS = frozenset(
    "agent_list agents assistant_settings default_vertex_config enable_jwt_auth files_settings finetune_settings guardrails "
    "litellm_jwtauth mcp_servers mcp_tools policies policy_attachments prompts sandbox_tools search_tools vector_store_registry "
    "worker_registry".split()
)

# With the type of the value; LiteLLM checks "any". A null is the same as a missing member.
ROUTER = {
    "allowed_fails": "whole",
    "allowed_fails_policy": "mapping",
    "background_health_check_model_groups": "list",
    "cache_kwargs": "mapping",
    "cache_responses": "flag",
    "caching_groups": "list",
    "client_ttl": "number",
    "content_policy_fallbacks": "list",
    "context_window_fallbacks": "list",
    "cooldown_time": "number",
    "default_fallbacks": "list",
    "default_litellm_params": "mapping",
    "default_max_parallel_requests": "whole",
    "default_priority": "whole",
    "deployment_affinity_ttl_seconds": "number",
    "disable_cooldowns": "flag",
    "enable_health_check_routing": "flag",
    "enable_mid_stream_fallback_continuation": "flag",
    "enable_pre_call_checks": "flag",
    "enable_tag_filtering": "flag",
    "enable_weighted_failover": "flag",
    "fallback_on_unsupported_params": "flag",
    "fallbacks": "list",
    "health_check_ignore_transient_errors": "flag",
    "health_check_staleness_threshold": "number",
    "max_fallbacks": "whole",
    "model_group_affinity_config": "mapping",
    "model_group_alias": "mapping",
    "model_group_retry_policy": "mapping",
    "num_retries": "whole",
    "optional_pre_call_checks": "list",
    "polling_interval": "number",
    "provider_budget_config": "mapping",
    "redis_db": "any",
    "redis_host": "text",
    "redis_password": "any",
    "redis_port": "any",
    "redis_url": "text",
    "retry_after": "number",
    "retry_policy": "mapping",
    "routing_groups": "list",
    "routing_strategy": "strategy",
    "routing_strategy_args": "mapping",
    "session_affinity_repin_on_failover": "flag",
    "stream_timeout": "number",
    "tag_filtering_match_any": "flag",
    "tag_routing_prefix": "text",
    "timeout": "number",
}
# The Router accepts these, but they are for a server or the log, or name code in the config's folder.
ROUTER_IGNORED = frozenset(
    "alerting_config assistants_config auto_router_capability_limit debug_level fallback_access_check fallback_budget_check "
    "guardrail_list ignore_invalid_deployments model_list plugins router_general_settings search_tools set_verbose".split()
)
STRATEGIES = frozenset(
    "simple-shuffle least-busy usage-based-routing usage-based-routing-v2 latency-based-routing cost-based-routing lar1".split()
)
# The gateway rejects these in router_settings; they belong in general_settings.
ROUTER_MISPLACED = frozenset({"health_check_interval", "health_check_concurrency"})

# Settings with an effect in a library. As in the gateway, they are set on LiteLLM's module; `backends/litellm/gateway_config`
# treats some of them separately.
LITELLM = frozenset(
    """
    add_function_to_prompt aiohttp_trust_env allowed_fails anthropic_prompt_caching_ttl api_base api_key api_version
    apply_search_free_tier bedrock_neutralize_orphaned_tool_blocks bedrock_request_metadata_fields
    block_requests_for_models_without_pricing budget_duration cache cache_params callbacks content_policy_fallbacks
    custom_provider_map
    context_window_fallbacks cost_discount_config cost_margin_config custom_prompt_dict default_fallbacks default_in_memory_ttl
    default_redis_batch_cache_expiry default_redis_ttl disable_add_prefix_to_prompt disable_add_transform_inline_image_block
    disable_aiohttp_transport disable_aiohttp_trust_env disable_anthropic_gemini_context_caching_transform
    disable_stop_sequence_limit disable_streaming_logging drop_params enable_anthropic_prompt_caching enable_azure_ad_token_refresh
    enable_caching_on_provider_specific_optional_params enable_gemini_default_thinking_level_low enable_json_schema_validation
    enable_preview_features failure_callback fallbacks filter_invalid_headers force_ipv4 force_redis_hash_tag_grouping headers http2
    langfuse_default_tags langfuse_enable_update_trace_keys langsmith_batch_size log_raw_request_response max_budget max_fallbacks
    max_tokens model_alias_map modify_params num_retries num_retries_per_request openai_system_messages_first organization project
    provider_url_destination_allowed_hosts reasoning_auto_summary request_timeout retry route_all_chat_openai_to_responses
    safe_memory_mode ssl_certificate ssl_ecdh_curve ssl_security_level ssl_verify standard_logging_payload_excluded_fields
    strip_anthropic_total_tokens success_callback turn_off_message_logging use_aiohttp_transport
    use_chat_completions_url_for_anthropic_messages user_url_allowed_hosts user_url_validation vertex_ai_safety_settings
    vertex_location vertex_project
    argilla_batch_size argilla_transformation_object aws_sqs_callback_params datadog_llm_observability_params datadog_params
    datadog_use_v1 dynamodb_table_name gcs_pub_sub_use_v1 generic_api_use_v1 generic_logger_headers newrelic_params pointfive_params
    s3_callback_params zerobus_params gemini_include_thoughts_default reasoning_effort_rounding
    """.split()
    + """
    ai21_key aleph_alpha_key amazon_nova_api_key anthropic_key azure_key baseten_key bytez_key clarifai_key cloudflare_api_key
    cohere_key cometapi_key databricks_key datarobot_key gdc_api_base gdc_key gigachat_key gradient_ai_api_key groq_key heroku_key
    huggingface_key inception_key infinity_key lemonade_key llama_api_key maritalk_key nebius_key nlp_cloud_key novita_api_key
    ollama_key openai_key openai_like_key openrouter_key ovhcloud_key predibase_key predibase_tenant_id replicate_key
    sap_service_key snowflake_key togetherai_api_key vercel_ai_gateway_key wandb_key xai_key
    """.split()
)
LITELLM_KINDS = {
    "allowed_fails": "whole",
    "cache": "flag",
    "cache_params": "mapping",
    "custom_provider_map": "list",
    "content_policy_fallbacks": "list",
    "context_window_fallbacks": "list",
    "default_fallbacks": "list",
    "drop_params": "flag",
    "fallbacks": "list",
    "max_budget": "number",
    "model_alias_map": "mapping",
    "modify_params": "flag",
    "num_retries": "whole",
    "request_timeout": "number",
    "user_url_allowed_hosts": "list",
    "user_url_validation": "flag",
    "provider_url_destination_allowed_hosts": "list",
}
CALLBACKS = ("callbacks", "success_callback", "failure_callback")
# Settings that work in parts of LiteLLM's completion that the bridge's modes leave out.
OF_COMPLETION = (
    *("model_fallbacks", "num_retries", "num_retries_per_request", "pre_call_rules", "post_call_rules", "model_alias_map"),
    *("proxy_auth", "guardrail_name_config_map"),
)
# They guard or count what callers of a server do, or need a port to be read from.
CALLBACKS_OF_A_SERVER = frozenset(
    """
    aporia_prompt_injection azure_content_safety banned_keywords batch_redis_requests blocked_user_check detect_prompt_injection
    dynamic_rate_limiter dynamic_rate_limiter_v3 email google_text_moderation hide_secrets lakera_prompt_injection
    llamaguard_moderations llmguard_moderations max_budget_limiter openai_moderations presidio prometheus resend_email
    sendgrid_email slack smtp_email
    """.split()
)
# The gateway accepts these, or LiteLLM's module has them, but they are for a server or the log (the bridge has its own), are
# internals of LiteLLM, or name code in the config's folder.
LITELLM_IGNORED = frozenset(
    """
    aclient_session adapters add_user_information_to_llm_headers agent_search_embedding_model allow_dynamic_callback_disabling
    anthropic_beta_headers_url anthropic_sse_ping_interval_seconds audit_log_callbacks autorouter_presets_url azure_llms
    banned_keywords_list blocked_user_list blog_posts_url budget_exceeded_status_code budget_exceeded_throttle_percentage
    budget_reset_time budget_rollover caching callback_settings check_provider_endpoint client_session cold_storage_custom_logger
    common_cloud_provider_auth_params config_path cooldown_time credential_list custom_prometheus_metadata_labels
    custom_prometheus_tags default_internal_user_params default_key_generate_params
    default_key_max_budget_alert_emails default_max_internal_user_budget default_soft_budget default_team_params
    default_team_settings disable_add_user_agent_to_request_tags disable_copilot_system_to_assistant disable_end_user_cost_tracking
    disable_end_user_cost_tracking_prometheus_only disable_hf_tokenizer_download disable_token_counter
    disable_vertex_batch_output_transformation email enable_end_user_cost_tracking_prometheus_only
    enable_key_alias_format_validation enable_loadbalancing_on_batch_endpoints enable_model_config_credential_overrides
    enable_redis_auth_cache error_logs expose_router_debug_in_errors extra_spend_tag_headers forward_traceparent_to_llm_provider
    gemini_live_defer_setup global_bitbucket_config global_disable_no_log_param global_gitlab_config global_prompt_directory
    google_moderation_confidence_threshold guardrail_name_config_map guardrails in_memory_llm_clients_cache
    include_cost_in_streaming_usage initialized_langfuse_clients input_callback internal_user_budget_duration json_logs
    key_alias_pattern key_generation_settings litellm_mode llamaguard_model_name llamaguard_unsafe_content_categories llm_guard_mode
    log_auth_failure_key_identity log_client_error_tracebacks logged_real_time_event_types logging
    longer_context_model_fallback_dict max_end_user_budget max_end_user_budget_id max_internal_user_budget max_ui_session_budget
    max_user_budget mcp_aliases mcp_semantic_tool_filter mcp_tool_search model_cost model_cost_map_url model_fallbacks
    model_group_settings model_list model_list_set models_by_provider network_mock openai_moderations_model_name
    otel_tenant_destination_mode output_parse_pii overwrite_user_with_key_hash post_call_rules pre_call_rules
    presidio_ad_hoc_recognizers priority_reservation priority_reservation_settings
    prometheus_deployment_and_latency_caller_identity prometheus_emit_input_sequence_length_label prometheus_emit_rate_limit_labels
    prometheus_emit_stream_label prometheus_end_user_metrics_cleanup_interval_seconds
    prometheus_end_user_metrics_max_series_per_metric prometheus_end_user_metrics_ttl_seconds prometheus_exclude_labels
    prometheus_exclude_metrics prometheus_initialize_budget_metrics prometheus_latency_buckets
    prometheus_metrics_cleanup_interval_seconds prometheus_metrics_config prometheus_metrics_max_series_per_metric
    prometheus_metrics_ttl_seconds prometheus_user_budget_label_include_email_alias prompt_name_config_map proxy_auth
    public_agent_groups public_mcp_hub_strict_whitelist public_mcp_servers public_model_groups public_model_groups_links
    public_skills_index redact_messages_in_exceptions redact_user_api_key_info request_correlation_in_logs
    require_auth_for_metrics_endpoint require_managed_files responses return_response_headers s3_audit_callback_params
    secret_manager_client service_callback set_verbose skill_search_embedding_model skip_system_message_in_guardrail
    skip_tool_message_in_guardrail sse_keepalive_ping_interval_seconds store_audit_logs suppress_debug_info tag_budget_config token
    upperbound_key_generate_params use_client use_litellm_proxy validate_end_user_id_in_db vector_store_index_registry
    vector_store_registry vector_store_search_failure_mode websearch_interception_params
    anthropic_messages_estimate_initial_input_tokens batch_line_item_callbacks personal_key_model_access_from_teams
    suppress_startup_output
    """.split()
)

# Members of general_settings: the same URL checks as in litellm_settings, and those that the gateway passes to its Router.
GENERAL_LITELLM = frozenset({"user_url_allowed_hosts", "user_url_validation", "provider_url_destination_allowed_hosts"})
GENERAL_ROUTER = {
    "enable_health_check_routing": "enable_health_check_routing",
    "health_check_staleness_threshold": "health_check_staleness_threshold",
    "health_check_ignore_transient_errors": "health_check_ignore_transient_errors",
}

COMPLETION_MODEL = "completion_model"

DEPLOYMENT = frozenset({"model_name", "litellm_params", "model_info"})
# LiteLLM calculates with these; written as texts, some of them would fail a request.
NUMBERS = frozenset(
    "rpm tpm weight order timeout stream_timeout max_retries num_retries max_parallel_requests cooldown_time max_budget "
    "input_cost_per_token output_cost_per_token input_cost_per_second output_cost_per_second temperature max_tokens top_p".split()
)
# Some members of litellm_params; any other is passed to the provider unchanged. A name that differs from one of these by one
# letter is probably a typing error.
PARAMS = frozenset(
    "model api_key api_base base_url api_version organization custom_llm_provider rpm tpm weight order tags timeout stream_timeout "
    "max_retries max_parallel_requests region_name vertex_project vertex_location vertex_credentials aws_access_key_id "
    "aws_secret_access_key aws_region_name aws_session_token litellm_credential_name input_cost_per_token output_cost_per_token "
    "input_cost_per_second output_cost_per_second temperature max_tokens extra_headers extra_body drop_params "
    "additional_drop_params allowed_openai_params mock_response".split()
)
