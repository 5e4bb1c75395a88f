/** Conversations in this browser's IndexedDB. */
const STORE = "conversations";

function open() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("yibu", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function run(mode, work) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** All of them, the one changed last first. */
export async function allConversations() {
  const all = await run("readonly", (store) => store.getAll());
  return all.sort((one, other) => other.changed - one.changed);
}

export const keepConversation = (conversation) =>
  run("readwrite", (store) => store.put(conversation));

export const removeConversation = (id) => run("readwrite", (store) => store.delete(id));
