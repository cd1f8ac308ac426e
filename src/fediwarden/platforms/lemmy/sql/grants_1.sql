-- What the role of a trace may read in the database of Lemmy 1.0: columns, never whole tables, and no secret among them.

-- name: grants
GRANT SELECT (id, domain) ON instance TO %(role)s;
GRANT SELECT (id, name, display_name, ap_id, local, avatar, banner, bio, published_at, deleted, instance_id) ON person TO %(role)s;
GRANT SELECT (person_id, target_id, note, noted_at) ON person_actions TO %(role)s;
GRANT SELECT (id, person_id, email, admin) ON local_user TO %(role)s;
GRANT SELECT (id, name, title, ap_id, local, icon, banner, sidebar, summary, removed, deleted, published_at, instance_id) ON community TO %(role)s;
GRANT SELECT (id, community_id, ap_id, display_name, summary, deleted, published_at) ON community_tag TO %(role)s;
GRANT SELECT (id, name, url, thumbnail_url, embed_video_url, embed_title, embed_description, body, alt_text, ap_id, local, removed, deleted, published_at, creator_id, community_id) ON post TO %(role)s;
GRANT SELECT (id, content, ap_id, local, removed, deleted, published_at, creator_id, community_id) ON comment TO %(role)s;
GRANT SELECT (pictrs_alias, published_at, person_id, thumbnail_for_post_id) ON local_image TO %(role)s;
GRANT SELECT (link, published_at) ON remote_image TO %(role)s;
GRANT SELECT (link, blurhash) ON image_details TO %(role)s;
GRANT SELECT (user_id, published_at, ip, user_agent) ON login_token TO %(role)s;
GRANT SELECT (id, icon, banner, sidebar, summary, content_warning, ap_id, published_at, instance_id) ON site TO %(role)s;
GRANT SELECT (id, site_id, application_question, legal_information, published_at) ON local_site TO %(role)s;
GRANT SELECT (id, local_user_id, answer, deny_reason, published_at) ON registration_application TO %(role)s;
GRANT SELECT (id, image_url, shortcode, alt_text, category, published_at) ON custom_emoji TO %(role)s;
GRANT SELECT (id, content, published_at) ON tagline TO %(role)s;
GRANT SELECT (id, original_post_name, original_post_url, original_post_body, reason, published_at) ON post_report TO %(role)s;
GRANT SELECT (id, original_comment_text, reason, published_at) ON comment_report TO %(role)s;
GRANT SELECT (id, community_id, original_community_name, original_community_title, original_community_icon, original_community_banner, original_community_sidebar, original_community_summary, reason, published_at) ON community_report TO %(role)s;
GRANT SELECT (id, ap_id, local, title, sidebar, summary, deleted, published_at, creator_id) ON multi_community TO %(role)s;
GRANT SELECT (id, kind, reason, target_community_id, published_at) ON modlog TO %(role)s;
GRANT SELECT (person_id, instance_id, received_ban_at, ban_expires_at) ON instance_actions TO %(role)s;

-- name: private messages
-- Only where the jurisdiction profile lets private messages be scanned.
GRANT SELECT (id, content, ap_id, local, removed, deleted, published_at, creator_id) ON private_message TO %(role)s;
GRANT SELECT (id, original_pm_text, reason, published_at) ON private_message_report TO %(role)s;
