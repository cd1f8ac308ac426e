-- The tables of Lemmy 1.0 that a trace reads, and some that it must not: names, types and keys as Lemmy has them.
CREATE TABLE instance (id serial PRIMARY KEY, domain varchar(255) NOT NULL UNIQUE);
CREATE TABLE person (id serial PRIMARY KEY, name varchar(255) NOT NULL, display_name varchar(50), avatar text, published_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz, ap_id varchar(255) NOT NULL UNIQUE, bio text, local boolean NOT NULL DEFAULT true, public_key text NOT NULL, private_key text, banner text,
  deleted boolean NOT NULL DEFAULT false, matrix_user_id text, instance_id int NOT NULL REFERENCES instance ON DELETE CASCADE);
CREATE TABLE local_user (id serial PRIMARY KEY, person_id int NOT NULL UNIQUE REFERENCES person ON DELETE CASCADE, password_encrypted text, email text,
  admin boolean NOT NULL DEFAULT false, invited_by_local_user_id int);
CREATE TABLE community (id serial PRIMARY KEY, name varchar(255) NOT NULL, title varchar(50), sidebar text, summary varchar(150), removed boolean NOT NULL DEFAULT false,
  published_at timestamptz NOT NULL DEFAULT now(), deleted boolean NOT NULL DEFAULT false, ap_id varchar(255) NOT NULL UNIQUE, local boolean NOT NULL DEFAULT true,
  public_key text NOT NULL, private_key text, icon text, banner text, instance_id int NOT NULL REFERENCES instance ON DELETE CASCADE);
CREATE TABLE post (id serial PRIMARY KEY, name varchar(200) NOT NULL, url varchar(2000), body text, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE,
  community_id int NOT NULL REFERENCES community ON DELETE CASCADE, removed boolean NOT NULL DEFAULT false, published_at timestamptz NOT NULL DEFAULT now(),
  deleted boolean NOT NULL DEFAULT false, thumbnail_url text, ap_id varchar(255) NOT NULL UNIQUE, local boolean NOT NULL DEFAULT true, embed_video_url text);
CREATE TABLE comment (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, post_id int NOT NULL REFERENCES post ON DELETE CASCADE,
  content text NOT NULL, removed boolean NOT NULL DEFAULT false, published_at timestamptz NOT NULL DEFAULT now(), deleted boolean NOT NULL DEFAULT false,
  ap_id varchar(255) NOT NULL UNIQUE, local boolean NOT NULL DEFAULT true, path text NOT NULL DEFAULT '0', community_id int NOT NULL REFERENCES community);
CREATE TABLE private_message (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, recipient_id int NOT NULL REFERENCES person ON DELETE CASCADE,
  content text NOT NULL, deleted boolean NOT NULL DEFAULT false, published_at timestamptz NOT NULL DEFAULT now(), ap_id varchar(255) NOT NULL UNIQUE,
  local boolean NOT NULL DEFAULT true, removed boolean NOT NULL DEFAULT false, deleted_by_recipient boolean NOT NULL DEFAULT false);
CREATE TABLE local_image (pictrs_alias text PRIMARY KEY, published_at timestamptz NOT NULL DEFAULT now(), person_id int REFERENCES person ON DELETE CASCADE,
  thumbnail_for_post_id int REFERENCES post ON DELETE CASCADE);
CREATE TABLE remote_image (link text PRIMARY KEY, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE image_details (link text PRIMARY KEY, width int NOT NULL, height int NOT NULL, content_type text NOT NULL, blurhash varchar(50));
CREATE TABLE login_token (token text PRIMARY KEY, user_id int NOT NULL REFERENCES local_user ON DELETE CASCADE, published_at timestamptz NOT NULL DEFAULT now(), ip text, user_agent text);
CREATE TABLE site (id serial PRIMARY KEY, name varchar(20) NOT NULL, sidebar text, published_at timestamptz NOT NULL DEFAULT now(), icon text, banner text, ap_id varchar(255),
  instance_id int NOT NULL REFERENCES instance);
CREATE TABLE local_site (id serial PRIMARY KEY, site_id int NOT NULL REFERENCES site);
CREATE TABLE instance_actions (person_id int NOT NULL REFERENCES person, instance_id int NOT NULL REFERENCES instance, received_ban_at timestamptz, ban_expires_at timestamptz,
  PRIMARY KEY (person_id, instance_id));
CREATE TABLE multi_community (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person, name varchar(255) NOT NULL, summary varchar(255), sidebar text, local boolean NOT NULL DEFAULT true,
  deleted boolean NOT NULL DEFAULT false, ap_id text NOT NULL, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE custom_emoji (id serial PRIMARY KEY, shortcode varchar(128) NOT NULL, image_url text NOT NULL UNIQUE, alt_text text NOT NULL, category text NOT NULL, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE tagline (id serial PRIMARY KEY, content text NOT NULL, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE post_report (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, post_id int NOT NULL REFERENCES post ON DELETE CASCADE,
  original_post_name varchar(200) NOT NULL, original_post_url text, original_post_body text, reason text NOT NULL, resolved boolean NOT NULL DEFAULT false, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE comment_report (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, comment_id int NOT NULL REFERENCES comment ON DELETE CASCADE,
  original_comment_text text NOT NULL, reason text NOT NULL, resolved boolean NOT NULL DEFAULT false, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE private_message_report (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE,
  private_message_id int NOT NULL REFERENCES private_message ON DELETE CASCADE, original_pm_text text NOT NULL, reason text NOT NULL, resolved boolean NOT NULL DEFAULT false,
  published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE community_report (id serial PRIMARY KEY, creator_id int NOT NULL REFERENCES person ON DELETE CASCADE, community_id int NOT NULL REFERENCES community ON DELETE CASCADE,
  original_community_name text NOT NULL, original_community_icon text, original_community_banner text, original_community_sidebar text, original_community_summary text,
  reason text NOT NULL, resolved boolean NOT NULL DEFAULT false, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE secret (id serial PRIMARY KEY, jwt_secret varchar NOT NULL);
INSERT INTO secret (jwt_secret) VALUES ('SECRET-jwt');
CREATE EXTENSION pg_trgm;
CREATE INDEX idx_comment_content_trigram ON comment USING gin (content gin_trgm_ops);
-- The other columns of text that Lemmy has, so that a search through all of them can be held against a trace. Enumerations are text here.
ALTER TABLE community ADD followers_url varchar, ADD inbox_url varchar NOT NULL DEFAULT '', ADD moderators_url varchar, ADD featured_url varchar;
CREATE TABLE community_actions (person_id int NOT NULL, community_id int NOT NULL, notifications text);
ALTER TABLE community_report ADD original_community_title text;
CREATE TABLE community_tag (id serial PRIMARY KEY, ap_id text NOT NULL DEFAULT '', name varchar NOT NULL DEFAULT '', display_name varchar, summary varchar, community_id int NOT NULL, published_at timestamptz NOT NULL DEFAULT now(), deleted boolean NOT NULL DEFAULT false, color text NOT NULL DEFAULT '');
CREATE TABLE custom_emoji_keyword (custom_emoji_id int NOT NULL, keyword varchar NOT NULL DEFAULT '');
CREATE TABLE email_verification (id serial PRIMARY KEY, local_user_id int NOT NULL, email text NOT NULL DEFAULT '', verification_token text NOT NULL DEFAULT '', published_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE instance ADD software varchar, ADD version varchar;
CREATE TABLE language (id serial PRIMARY KEY, code varchar NOT NULL DEFAULT '', name text NOT NULL DEFAULT '');
ALTER TABLE local_site ADD published_at timestamptz NOT NULL DEFAULT now(), ADD application_question text, ADD default_theme text NOT NULL DEFAULT '', ADD default_post_listing_type text NOT NULL DEFAULT '', ADD legal_information text, ADD slur_filter_regex text, ADD registration_mode text NOT NULL DEFAULT '', ADD default_post_listing_mode text NOT NULL DEFAULT '', ADD default_post_sort_type text NOT NULL DEFAULT '', ADD default_comment_sort_type text NOT NULL DEFAULT '', ADD post_upvotes text NOT NULL DEFAULT '', ADD post_downvotes text NOT NULL DEFAULT '', ADD comment_upvotes text NOT NULL DEFAULT '', ADD comment_downvotes text NOT NULL DEFAULT '', ADD image_mode text NOT NULL DEFAULT '', ADD image_proxy_bypass_domains text;
CREATE TABLE local_site_url_blocklist (id serial PRIMARY KEY, url text NOT NULL DEFAULT '', published_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE local_user ADD theme text NOT NULL DEFAULT '', ADD default_post_sort_type text NOT NULL DEFAULT '', ADD default_listing_type text NOT NULL DEFAULT '', ADD interface_language varchar NOT NULL DEFAULT '', ADD totp_2fa_secret text, ADD post_listing_mode text NOT NULL DEFAULT '', ADD default_comment_sort_type text NOT NULL DEFAULT '', ADD show_downvotes text NOT NULL DEFAULT '';
CREATE TABLE local_user_invite (id serial PRIMARY KEY, token text NOT NULL DEFAULT '', local_user_id int NOT NULL, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE local_user_keyword_block (local_user_id int NOT NULL, keyword varchar NOT NULL DEFAULT '');
CREATE TABLE modlog (id serial PRIMARY KEY, kind text NOT NULL DEFAULT '', mod_id int NOT NULL, reason text, target_community_id int, published_at timestamptz NOT NULL DEFAULT now());
ALTER TABLE multi_community ADD title varchar, ADD public_key text NOT NULL DEFAULT '', ADD private_key text, ADD inbox_url text NOT NULL DEFAULT '', ADD following_url text NOT NULL DEFAULT '';
CREATE TABLE notification (id serial PRIMARY KEY, recipient_id int NOT NULL, published_at timestamptz NOT NULL DEFAULT now(), kind text NOT NULL DEFAULT '', post_id int, community_id int);
CREATE TABLE oauth_account (local_user_id int NOT NULL, oauth_provider_id int NOT NULL, oauth_user_id text NOT NULL DEFAULT '', published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE oauth_provider (id serial PRIMARY KEY, display_name text NOT NULL DEFAULT '', issuer text NOT NULL DEFAULT '', authorization_endpoint text NOT NULL DEFAULT '', token_endpoint text NOT NULL DEFAULT '', userinfo_endpoint text NOT NULL DEFAULT '', id_claim text NOT NULL DEFAULT '', client_id text NOT NULL DEFAULT '', client_secret text NOT NULL DEFAULT '', scopes text NOT NULL DEFAULT '', published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE password_reset_request (id serial PRIMARY KEY, token text NOT NULL DEFAULT '', published_at timestamptz NOT NULL DEFAULT now(), local_user_id int NOT NULL);
ALTER TABLE person ADD inbox_url varchar NOT NULL DEFAULT '';
CREATE TABLE person_actions (person_id int NOT NULL, target_id int NOT NULL, noted_at timestamptz, note text);
ALTER TABLE post ADD embed_title text, ADD embed_description text, ADD url_content_type text, ADD alt_text text;
CREATE TABLE post_actions (person_id int NOT NULL, post_id int NOT NULL, notifications text);
CREATE TABLE received_activity (ap_id text NOT NULL DEFAULT '', published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE registration_application (id serial PRIMARY KEY, local_user_id int NOT NULL, answer text NOT NULL DEFAULT '', deny_reason text, published_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE sent_activity (id serial PRIMARY KEY, ap_id text NOT NULL DEFAULT '', data json NOT NULL DEFAULT '{}', published_at timestamptz NOT NULL DEFAULT now(), send_inboxes text[] NOT NULL DEFAULT '{}', actor_type text NOT NULL DEFAULT '', actor_apub_id text);
ALTER TABLE site ADD summary varchar, ADD inbox_url varchar NOT NULL DEFAULT '', ADD private_key text, ADD public_key text NOT NULL DEFAULT '', ADD content_warning text;
CREATE INDEX idx_post_url ON post (url);
CREATE INDEX idx_post_trigram ON post USING gin (name gin_trgm_ops, body gin_trgm_ops, alt_text gin_trgm_ops);
CREATE INDEX idx_person_trigram ON person USING gin (name gin_trgm_ops, display_name gin_trgm_ops, bio gin_trgm_ops);
CREATE INDEX idx_community_trigram ON community USING gin (name gin_trgm_ops, title gin_trgm_ops, summary gin_trgm_ops, sidebar gin_trgm_ops);
CREATE INDEX idx_multi_community_trigram ON multi_community USING gin (name gin_trgm_ops, title gin_trgm_ops, summary gin_trgm_ops, sidebar gin_trgm_ops);
