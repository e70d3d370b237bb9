export const platformTeam = `
INSERT INTO teams (id, name, slug) VALUES ('team-0000000000000000000000000', 'Platform', 'platform');
`;
