/*
 * A host that no address leads to brings the control plane byte streams: WebSockets of binary messages on
 * /v1/hosts/{id}/link, each as good as a TCP connection to the agent. The control plane speaks first, TLS.
 */

/** Holds the token of a host's agent. */
export const HOST_TOKEN_HEADER = 'x-host-token';
/** In the request: the `boot_id` of the agent's heartbeats. */
export const LINK_BOOT_ID_HEADER = 'x-wrenn-boot-id';
/** In the request: ids of the control planes that the agent has a link to, with commas between them. */
export const LINKED_HEADER = 'x-wrenn-linked';
/** In the answer: id of the control plane that gave it. */
export const CONTROL_PLANE_HEADER = 'x-wrenn-control-plane';

/** The path by which a host brings a link. */
export function linkPath(hostId: string): string {
  return `/v1/hosts/${hostId}/link`;
}
