/** The team that the platform's own capsules and templates belong to. A migration makes it; nobody is a member. */
export const PLATFORM_TEAM_ID = `team-${'0'.repeat(25)}`;
