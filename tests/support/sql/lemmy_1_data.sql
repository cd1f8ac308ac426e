-- A small Lemmy 1.0: alice (uploaded, banned here), carol, bob of another server; one address still has the shape of 0.19.
INSERT INTO instance (id, domain) VALUES (1, 'lemmy.example'), (2, 'remote.example');
INSERT INTO person (id, name, public_key, private_key, instance_id, local, ap_id, avatar, bio) VALUES
 (101, 'alice', 'pk', 'SECRET-key', 1, true, 'https://lemmy.example/u/alice', 'https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000003.png', NULL),
 (102, 'bob', 'pk', NULL, 2, false, 'https://remote.example/u/bob', NULL, NULL),
 (103, 'carol', 'pk', 'SECRET-key', 1, true, 'https://lemmy.example/u/carol', NULL, 'see ![](https://lemmy.example/pictrs/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)'),
 (104, 'dave', 'pk', 'SECRET-key', 1, true, 'https://lemmy.example/u/dave', NULL, NULL);
INSERT INTO local_user (id, person_id, password_encrypted, email, admin) VALUES
 (201, 101, 'SECRET-password', 'alice@example.org', false), (203, 103, 'SECRET-password', 'carol@example.org', false), (204, 104, 'SECRET-password', NULL, true);
INSERT INTO community (id, name, title, public_key, private_key, instance_id, ap_id, icon, summary) VALUES
 (301, 'pics', 'Pics', 'pk', 'SECRET-key', 1, 'https://lemmy.example/c/pics', 'https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg?file_type=webp', NULL);
INSERT INTO post (id, name, url, body, creator_id, community_id, ap_id, local, thumbnail_url) VALUES
 (401, 'a link', 'https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg', NULL, 101, 301, 'https://lemmy.example/post/401', true, NULL),
 (402, 'a preview', 'https://news.example/a', NULL, 102, 301, 'https://remote.example/post/9', false, 'https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000002.webp'),
 (404, 'proxied', 'https://news.example/b', NULL, 102, 301, 'https://remote.example/post/10', false, 'https://lemmy.example/api/v4/image/proxy?url=https%3A%2F%2Fimg.example%2Fx.png&max_size=512'),
 (405, 'proxied, another', 'https://news.example/c', NULL, 104, 301, 'https://lemmy.example/post/405', true, 'https://lemmy.example/api/v4/image/proxy?url=https%3A%2F%2Fimg.example%2Fx.png%26b'),
 (406, 'a proxied address of this server', NULL, '![](https://lemmy.example/api/v4/image/proxy?url=https%3A%2F%2Flemmy.example%2Fpictrs%2Fimage%2Faaaaaaaa-0000-4000-8000-000000000001.jpeg)', 103, 301, 'https://lemmy.example/post/406', true, NULL);
INSERT INTO local_image (person_id, pictrs_alias, thumbnail_for_post_id, published_at) VALUES
 (101, 'aaaaaaaa-0000-4000-8000-000000000001.jpeg', NULL, '2024-05-01T10:00:00Z'), (101, 'aaaaaaaa-0000-4000-8000-000000000003.png', NULL, '2024-05-02T10:00:00Z'),
 (102, 'aaaaaaaa-0000-4000-8000-000000000002.webp', 402, '2024-05-03T10:00:00Z'), (101, 'aaaaaaaa-0000-4000-8000-000000000004.webp', 401, '2024-05-04T10:00:00Z');
INSERT INTO comment (id, creator_id, post_id, content, ap_id, local, path, community_id) VALUES
 (501, 101, 402, '![](https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', 'https://lemmy.example/comment/501', true, '0.501', 301);
INSERT INTO private_message (id, creator_id, recipient_id, content, ap_id, local) VALUES
 (601, 104, 103, '![](https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)', 'https://lemmy.example/private_message/601', true);
INSERT INTO login_token (token, user_id, published_at, ip, user_agent) VALUES
 ('SECRET-jwt-a1', 201, '2024-04-01T00:00:00Z', '203.0.113.7', 'Mozilla/5.0 test'), ('SECRET-jwt-c1', 203, '2024-04-03T00:00:00Z', '198.51.100.9', NULL);
INSERT INTO site (id, name, ap_id, instance_id) VALUES (1, 'test', 'https://lemmy.example/', 1);
INSERT INTO local_site (id, site_id) VALUES (1, 1);
INSERT INTO instance_actions (person_id, instance_id, received_ban_at) VALUES (101, 1, now()), (103, 2, now());
INSERT INTO multi_community (id, creator_id, name, ap_id, sidebar) VALUES
 (311, 103, 'multi', 'https://lemmy.example/m/multi', '![](https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg)');
INSERT INTO community_report (id, creator_id, community_id, original_community_name, original_community_icon, reason) VALUES
 (904, 104, 301, 'pics', 'https://lemmy.example/api/v4/image/aaaaaaaa-0000-4000-8000-000000000001.jpeg?file_type=webp', 'bad');
