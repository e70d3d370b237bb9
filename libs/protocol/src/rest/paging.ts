import { z } from 'zod';

/** Fields of a query that every paged list takes. */
export const pageQueryFields = {
  limit: z.coerce.number().int().min(1).max(200).default(50).meta({ description: 'At most this many entries.' }),
  cursor: z.string().max(500).optional().meta({ description: 'next_cursor of the page before. Default: the first.' }),
} as const;

export const pageQuerySchema = z.object(pageQueryFields);

/** One page of a list. */
export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.object({
    items: z.array(item),
    next_cursor: z.string().nullable().meta({ description: 'Names the next page; null: this is the last.' }),
  });
}

/** Entries that one array holds at most. */
const ARRAY_LIMIT = 1000;

/** The same for lists that answer with a bare array: the next page is named by headers. */
export const arrayQueryFields = {
  limit: z.coerce.number().int().min(1).max(ARRAY_LIMIT).default(ARRAY_LIMIT).meta({
    description: 'At most this many entries. Where there are more, X-Next-Cursor and Link name the next page.',
  }),
  cursor: z.string().max(500).optional().meta({ description: 'X-Next-Cursor of the page before. Default: the first.' }),
} as const;

export const arrayQuerySchema = z.object(arrayQueryFields);
export type ArrayQuery = z.output<typeof arrayQuerySchema>;
