"use strict";
(() => {
	const root = document.documentElement, stale = document.getElementById("stale");
	const keyOf = (e) => e && (e.id || (e.closest("details") || {}).id);
	// swap replaces the parts of the page, and keeps open details open.
	const swap = (fresh) => {
		const open = new Map([...document.querySelectorAll("details[id]")].map((d) => [d.id, d.open]));
		const focused = document.activeElement, key = main().contains(focused) && keyOf(focused);
		for (const old of document.querySelectorAll("[data-live]")) {
			const now = fresh.getElementById(old.id);
			if (!now) continue;
			for (const d of now.querySelectorAll("details[id]")) if (open.has(d.id)) d.open = open.get(d.id);
			old.replaceWith(document.adoptNode(now));
		}
		document.title = fresh.title;
		const again = key && document.getElementById(key);
		if (again) (again.querySelector("summary") || again).focus({ preventScroll: true });
	};
	const main = () => document.getElementById("main");
	const busy = () => document.hidden || !getSelection().isCollapsed && main().contains(getSelection().anchorNode);
	const refresh = async () => {
		if (busy()) return;
		try {
			const response = await fetch(location.href, { cache: "no-store" });
			if (!response.ok) throw new Error("status " + response.status);
			swap(new DOMParser().parseFromString(await response.text(), "text/html"));
			stale.textContent = "";
		} catch (error) {
			stale.textContent = "Not refreshed since: " + error.message + ".";
		}
	};
	setInterval(refresh, Number(root.dataset.refresh) * 1000);
	document.addEventListener("visibilitychange", refresh);
})();
