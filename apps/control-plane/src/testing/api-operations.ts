import type { Permission } from '../access/permissions.ts';

export interface ApiParameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header' | 'cookie';
  readonly required?: boolean;
  readonly schema: Record<string, unknown>;
}

/** An operation as the OpenAPI document describes it. */
export interface OperationSpec {
  readonly operationId: string;
  readonly summary: string;
  readonly description: string;
  readonly tags: readonly string[];
  readonly parameters: readonly ApiParameter[];
  readonly security: readonly object[];
  readonly requestBody?: { readonly content: Record<string, { readonly schema: Record<string, unknown> }> };
  readonly responses: Record<string, { readonly content: Record<string, unknown> }>;
  readonly 'x-wrenn-permission': Permission;
  readonly 'x-wrenn-roles'?: readonly string[];
  readonly 'x-wrenn-scope'?: string;
  /** The parameter of the path that names the team, where it need not be the one of the credential. */
  readonly 'x-wrenn-team-param'?: string;
}

export interface ApiOperation {
  readonly id: string;
  /** In capitals. */
  readonly method: string;
  /** With `{name}` for each parameter. */
  readonly path: string;
  readonly permission: Permission;
  readonly isSocket: boolean;
  readonly spec: OperationSpec;
}

/** Everything that a document lists. */
export function operationsOf(document: {
  readonly paths: Record<string, Record<string, OperationSpec>>;
}): ApiOperation[] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, spec]) => ({
      id: spec.operationId,
      method: method.toUpperCase(),
      path,
      permission: spec['x-wrenn-permission'],
      isSocket: '101' in spec.responses,
      spec: { ...spec, parameters: spec.parameters ?? [], security: spec.security ?? [] },
    })),
  );
}
